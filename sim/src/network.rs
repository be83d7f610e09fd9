//! The simulated network: who reaches whom, how slowly, and how surely. Each direction is its own link.

use crate::Millis;

/// Somebody on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// A vtorc.
    Manager(u8),
    /// A MySQL server.
    Server(u8),
    /// The topology server.
    Topology,
    /// Those who write.
    Clients,
}

const MANAGERS_MAX: usize = 4;
const SERVERS_MAX: usize = 24;
const PARTIES: usize = MANAGERS_MAX + SERVERS_MAX + 2;
/// One way, on a good day.
const LATENCY_MS: Millis = 1;

impl Party {
    fn index(self) -> usize {
        match self {
            Self::Manager(number) => usize::from(number).min(MANAGERS_MAX - 1),
            Self::Server(number) => MANAGERS_MAX + usize::from(number).min(SERVERS_MAX - 1),
            Self::Topology => PARTIES - 2,
            Self::Clients => PARTIES - 1,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    cuts: u8,
    delay_ms: Millis,
    loss_percent: u8,
}

/// All links.
pub struct Network {
    links: Vec<Link>,
}

impl Default for Network {
    fn default() -> Self {
        Self { links: vec![Link::default(); PARTIES * PARTIES] }
    }
}

impl Network {
    fn link(&self, from: Party, to: Party) -> Link {
        self.links.get(from.index() * PARTIES + to.index()).copied().unwrap_or_default()
    }

    fn change(&mut self, from: Party, to: Party, change: impl FnOnce(&mut Link)) {
        if let Some(link) = self.links.get_mut(from.index() * PARTIES + to.index()) {
            change(link);
        }
    }

    /// Cuts directions, or mends them; several cuts need to be mended as often.
    pub fn switch(&mut self, links: &[(Party, Party)], cut: bool) {
        for (from, to) in links {
            self.change(*from, *to, |link| {
                link.cuts = if cut { link.cuts + 1 } else { link.cuts.saturating_sub(1) };
            });
        }
    }

    /// Makes one direction slow and lossy.
    pub fn trouble(&mut self, from: Party, to: Party, delay_ms: Millis, loss_percent: u8) {
        self.change(from, to, |link| {
            link.delay_ms = delay_ms;
            link.loss_percent = loss_percent;
        });
    }

    /// Everything is well again.
    pub fn heal(&mut self) {
        *self = Self::default();
    }

    /// Tells whether anything gets through.
    pub fn is_open(&self, from: Party, to: Party) -> bool {
        self.link(from, to).cuts == 0
    }

    /// Tells whether both directions are open.
    pub fn is_open_both_ways(&self, one: Party, other: Party) -> bool {
        self.is_open(one, other) && self.is_open(other, one)
    }

    /// Tells whether all gets through at once, both ways.
    pub fn is_calm(&self, one: Party, other: Party) -> bool {
        let calm = |link: Link| link.cuts == 0 && link.delay_ms == 0 && link.loss_percent == 0;
        calm(self.link(one, other)) && calm(self.link(other, one))
    }

    /// How much longer than on a good day a packet may take.
    pub fn delay(&self, from: Party, to: Party) -> Millis {
        self.link(from, to).delay_ms
    }

    /// How long a packet takes; none if it never arrives.
    pub fn travel(&self, from: Party, to: Party, dice: &mut fastrand::Rng) -> Option<Millis> {
        let link = self.link(from, to);
        if link.cuts > 0 || (link.loss_percent > 0 && dice.u8(0..100) < link.loss_percent) {
            return None;
        }
        Some(LATENCY_MS + if link.delay_ms > 0 { dice.u64(0..=link.delay_ms) } else { 0 })
    }
}
