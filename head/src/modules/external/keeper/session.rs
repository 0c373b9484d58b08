//! One conversation with a module, from its greeting to its end, and what comes of it.
//!
//! What the module may say is `engine::wire::module`'s business, what its end means the keeper's (the parent module).

use engine::event::Fire;
use engine::state::{NodeId, StateUrl, Values};
use engine::wire::convert::{mutate_to_proto, values_to_proto};
use engine::wire::module::{ModuleEvent, ModuleHost};
use proto::v1;
use tokio::time::{Instant, sleep};
use tracing::{debug, error, info, warn};

use super::super::health::{Answer, Health, Verdict};
use super::super::link::{Link, words};
use super::super::spawn::Process;
use super::super::status::RUN;
use super::{End, Keeper, LOOK, Order, end_words, ended};

impl Keeper {
    /// Speaks with the module until one of both ends it.
    pub(super) async fn session(
        &mut self,
        mut link: Link,
        mut host: ModuleHost,
        process: &mut Option<Process>,
    ) -> End {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut health = Health::default();
        let end = loop {
            if let Some(end) = self.flush(&mut link, &mut host, &health).await {
                break end;
            }
            let now = self.shared.clock.now();
            let may_read = host.may_read(now);
            let due = host.poll_timeout(now).since(now);
            tokio::select! {
                message = link.from.message(), if may_read => match message {
                    Ok(Some(message)) => host.handle_message(message, self.shared.clock.now()),
                    Ok(None) => break End::Failed(end_words(process, "it ended the call").await),
                    Err(status) => break End::Failed(end_words(process, &words(&status)).await),
                },
                () = sleep(due) => host.handle_timeout(self.shared.clock.now()),
                why = ended(process) => break End::Failed(why),
                Some(answer) = link.health.recv() => {
                    if let Some(end) = self.hear(&mut host, &mut health, answer).await {
                        break end;
                    }
                }
                _ = looks.tick() => {
                    if let Some(why) = process.as_ref().and_then(Process::excess) {
                        break End::Failed(why);
                    }
                }
                () = self.shared.stop.cancelled() => break End::Head,
                order = self.orders.recv() => match order {
                    None => break End::Head,
                    Some(Order::Want(true)) => self.hosted.report(&self.shared).await,
                    Some(Order::Want(false)) => {
                        self.wanted = false;
                        break End::Stopped;
                    }
                    Some(Order::Fire(fire)) if self.hosted.status().up => self.tell(&mut host, &fire),
                    Some(Order::Fire(fire)) => self.queue(*fire).await,
                    Some(Order::Interrupt(node, mutation, attempt)) => {
                        self.forget(node, &mutation, attempt);
                        host.interrupt(node, &mutation, attempt);
                    }
                    Some(Order::Leave) => break End::Left,
                    Some(Order::Program(program)) => {
                        if self.take(*program) {
                            break End::Changed;
                        }
                        let config = self.shared.config(self.name(), self.program.as_ref()).await;
                        host.configure(&config);
                    }
                    Some(Order::Configure) => {
                        let config = self.shared.config(self.name(), self.program.as_ref()).await;
                        host.configure(&config);
                    }
                },
            }
        };
        for (node, mutation, attempt) in host.told() {
            let text = match &end {
                End::Failed(why) => {
                    let why = self.hosted.told.scrubbed(why.clone());
                    format!("module {} failed while at it: {why}", self.name())
                }
                End::Stopped | End::Head | End::Left => {
                    format!("module {} was stopped while at it", self.name())
                }
                End::Changed => format!(
                    "module {} was started again, by another configuration, while at it",
                    self.name()
                ),
            };
            let mutation = mutation.clone();
            self.shared
                .reports
                .fail_attempt(node, mutation, attempt, text)
                .await;
        }
        end
    }

    /// Carries out what came of a message, and sends what there is to send.
    async fn flush(
        &mut self,
        link: &mut Link,
        host: &mut ModuleHost,
        health: &Health,
    ) -> Option<End> {
        let mut end = None;
        while let Some(event) = host.poll_event() {
            match event {
                ModuleEvent::Declared(declared) => {
                    if let Err(error) = self.hosted.declare(&self.shared, declared).await {
                        let error = self.hosted.told.scrubbed(error.to_string());
                        error!(module = self.name(), error, "its declaration is not taken");
                        host.refuse(format!("declaration: {error}"), self.shared.clock.now());
                        end = Some(End::Failed(format!(
                            "its declaration is not taken: {error}"
                        )));
                        continue;
                    }
                    self.show(|status| status.state = RUN).await;
                    self.open(host, health).await;
                }
                ModuleEvent::Discovered { node, changes } => {
                    let source = self.name().to_owned();
                    self.shared.reports.discover(node, source, changes).await;
                }
                ModuleEvent::Failed {
                    node,
                    mutation,
                    attempt,
                    text,
                } => {
                    let text = self.hosted.told.scrubbed(text);
                    self.shared
                        .reports
                        .fail_attempt(node, mutation, attempt, text)
                        .await;
                }
                ModuleEvent::Line { level, node, text } => self.log(level, node, text).await,
                ModuleEvent::Asked { id, nodes, urls } => {
                    let result = self.query(host, id, nodes, urls).await;
                    host.answer(result);
                }
                ModuleEvent::Odd(text) => {
                    let text = self.hosted.told.scrubbed(text);
                    warn!(module = self.name(), text, "odd module");
                }
                ModuleEvent::End(why) => end = Some(End::Failed(why)),
            }
        }
        while let Some(message) = host.poll_transmit() {
            if link.to.try_send(message).is_err() && end.is_none() {
                end = Some(End::Failed("it takes no more messages".into()));
            }
        }
        self.hosted.status().count(self.name(), host.counts());
        end
    }

    /// Takes what the module says about its health.
    async fn hear(
        &mut self,
        host: &mut ModuleHost,
        health: &mut Health,
        answer: Answer,
    ) -> Option<End> {
        let verdict = health.handle(answer, Instant::now());
        let word = health.word();
        self.hosted.status().health = word;
        match verdict {
            Verdict::Same => {}
            Verdict::Hold(why) => {
                let why = self.hosted.told.scrubbed(why);
                warn!(
                    module = self.name(),
                    why, "the module does not serve: mutations wait for it"
                );
                self.show(|status| {
                    status.up = false;
                    status.trouble(&why);
                })
                .await;
            }
            Verdict::Resume => {
                info!(module = self.name(), "the module serves again");
                self.open(host, health).await;
            }
            Verdict::End(why) => return Some(End::Failed(why)),
        }
        None
    }

    /// Hands on what waits, if the module has declared what it can do and does not say that it cannot serve.
    async fn open(&mut self, host: &mut ModuleHost, health: &Health) {
        if !host.has_declared() || health.is_held() {
            return;
        }
        self.show(|status| status.up = true).await;
        while let Some(fire) = self.waiting.pop_front() {
            self.tell(host, &fire);
        }
    }

    fn tell(&self, host: &mut ModuleHost, fire: &Fire) {
        let hidden = |url: &StateUrl| self.hides(url);
        let cfg = host.scope().filter(&fire.cfg, &[], hidden);
        let dsc = host.scope().filter(&fire.dsc, &[], hidden);
        self.learn(&cfg);
        self.learn(&dsc);
        let mutate = mutate_to_proto(fire, &cfg, &dsc, self.shared.clock.now());
        debug!(module = self.name(), node = %fire.name, mutation = %fire.mutation, "told");
        host.fire(fire, mutate);
    }

    /// The module is about to hear these values.
    fn learn(&self, values: &Values) {
        self.hosted.told.learn(&self.shared.schema.get(), values);
    }

    fn hides(&self, url: &StateUrl) -> bool {
        let shown = self
            .program
            .as_ref()
            .is_some_and(|program| program.secrets.contains(url));
        !shown && self.shared.schema.get().is_secret(url)
    }

    async fn query(
        &self,
        host: &ModuleHost,
        id: u64,
        nodes: Vec<NodeId>,
        urls: Vec<StateUrl>,
    ) -> v1::QueryResult {
        let read = self.shared.handle.query(move |engine, _| {
            let wanted = |id: &NodeId| nodes.is_empty() || nodes.contains(id);
            let found = engine.tree().iter().filter(|node| wanted(&node.id));
            found
                .map(|node| {
                    (
                        node.id,
                        node.name.clone(),
                        node.cfg.clone(),
                        node.dsc.clone(),
                    )
                })
                .collect::<Vec<_>>()
        });
        let hidden = |url: &StateUrl| self.hides(url);
        let filtered = |values: &Values| {
            let values = host.scope().filter(values, &urls, hidden);
            self.learn(&values);
            Some(values_to_proto(&values))
        };
        match read.await {
            Ok(found) => {
                let nodes = found
                    .into_iter()
                    .map(|(node, name, cfg, dsc)| v1::QueriedNode {
                        node_id: node.as_bytes().to_vec(),
                        node_name: name.to_string(),
                        cfg: filtered(&cfg),
                        dsc: filtered(&dsc),
                    });
                v1::QueryResult {
                    id,
                    nodes: nodes.collect(),
                    error: String::new(),
                }
            }
            Err(error) => v1::QueryResult {
                id,
                nodes: Vec::new(),
                error: error.to_string(),
            },
        }
    }

    /// Repeats what the module says in the log, without the secrets that it was told and those of the node that it speaks of.
    async fn log(&self, level: v1::module_log::Level, node: Option<NodeId>, text: String) {
        let mut text = self.hosted.told.scrubbed(text);
        if let Some(node) = node {
            let read = self
                .shared
                .handle
                .query(move |engine, _| engine.scrubbed(node, text));
            match read.await {
                Ok(clean) => text = clean,
                // The head stops; what cannot be checked is not said.
                Err(_) => return,
            }
        }
        let (module, node) = (self.name(), node.map(|node| node.to_string()));
        use v1::module_log::Level;
        match level {
            Level::Error => error!(module, node, text, "module log"),
            Level::Warn => warn!(module, node, text, "module log"),
            Level::Info | Level::Unspecified => info!(module, node, text, "module log"),
            Level::Debug => debug!(module, node, text, "module log"),
        }
    }
}
