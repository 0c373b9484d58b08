//! Whole-system claims, one file each, on virtual clusters; and checks of the repository itself.
//!
//! VM claims run under `cargo lab test`, which builds what they boot. A plain `cargo test` says aloud that it leaves them out.
//! Most of them share one cluster of two nodes, one after the other; see `lab::claim`.

mod lab;

mod agent_killed_readopts;
mod busy_node_is_left_alone;
mod fault_table;
mod four_nodes_boot_together;
mod grant_is_used_once;
mod head_killed_adopts_without_power_action;
mod image_runs_and_answers;
mod image_tampered_is_refused;
mod image_that_fails_is_parked;
mod ipmitool_file_switches_power;
mod lab_leaves_nothing_behind;
mod module_is_bounded;
mod node_boots_to_sync;
mod plug_pulled_comes_back;
mod power_off_drains_first;
mod python_module_runs_on_a_node;
mod python_module_waits_for_io_nodes;
mod rack_reboots_one_by_one;
mod spoofed_sync_is_dropped;
mod tftp_and_http_stay_inside;
mod tidy;
mod unknown_machine_is_held;
