//! kraken-agent.
mod cmdline;
mod drivers;
mod image;
mod kmsg;
mod net;
mod pid1;
mod sys;
fn main() {
    pid1::run()
}
