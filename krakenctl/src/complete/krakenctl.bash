# Completion of krakenctl in bash: asks krakenctl itself. Load it with: source <(krakenctl completion bash)
_krakenctl() {
    local line=${COMP_LINE:0:COMP_POINT} words cur mark before prefix=
    read -ra words <<< "$line"
    [[ $line == *[[:blank:]] ]] && words+=("")
    cur=${words[${#words[@]}-1]}
    local IFS=$'\013'
    COMPREPLY=( $(
        _CLAP_IFS=$IFS _CLAP_COMPLETE_INDEX=$((${#words[@]}-1)) _CLAP_COMPLETE_COMP_TYPE=$COMP_TYPE \
        KRAKENCTL_COMPLETE=bash krakenctl -- "${words[@]}" 2> /dev/null
    ) )
    # Options are offered when one is begun, not among the names.
    if [[ -z $cur ]]; then
        local all=("${COMPREPLY[@]}") one
        COMPREPLY=()
        for one in "${all[@]}"; do
            [[ $one == -* ]] || COMPREPLY+=("$one")
        done
    fi
    # Words are split by blanks alone here, because urls and groups hold marks at which readline breaks words. It replaces only
    # what stands behind the last of them, so that is what it gets.
    for mark in = : @; do
        if [[ $COMP_WORDBREAKS == *"$mark"* && $cur == *"$mark"* ]]; then
            before=${cur%"$mark"*}
            # Readline counts '@' to the word that it begins.
            [[ $mark == @ ]] || before+=$mark
            (( ${#before} > ${#prefix} )) && prefix=$before
        fi
    done
    COMPREPLY=( "${COMPREPLY[@]#"$prefix"}" )
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=/] ]] && compopt -o nospace
    return 0
}
complete -o bashdefault -F _krakenctl krakenctl
