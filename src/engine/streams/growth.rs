//! How many connections the streams of an endpoint want: pure arithmetic.

/// What there is at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Census {
    /// Connections that take streams.
    pub open: u32,
    /// Streams that are leased of them.
    pub leased: u32,
    /// How many they take together.
    pub room: u32,
    /// Callers in line.
    pub waiting: u32,
}

/// How many connections there are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// At least so many while there are streams, so that one lost packet does not hold all of them
    /// up.
    pub min: u32,
    /// At most so many.
    pub max: u32,
    /// Streams that a connection takes, of which nothing else is known.
    pub streams: u32,
}

impl Census {
    /// How many connections there should be now: what the streams need and no more, never more than
    /// twice what there is, and one as long as there is none.
    ///
    /// Doubling keeps a burst from dialling for callers that the first connections serve before the
    /// last are there; need keeps it from dialling for nobody.
    pub fn wanted(self, bounds: Bounds) -> u32 {
        let streams = self.leased.saturating_add(self.waiting);
        if streams == 0 {
            return self.open;
        }
        if self.open == 0 {
            return bounds.max.min(1);
        }
        // Another connection to a peer that allows no stream brings none.
        let need = match u64::from(self.room) {
            0 => self.open,
            room => {
                let need = (u64::from(streams) * u64::from(self.open)).div_ceil(room);
                need.min(u32::MAX.into()) as u32
            }
        };
        need.max(bounds.min).min(self.open.saturating_mul(2)).min(bounds.max).max(self.open)
    }

    /// How many of the connections may go, when no more than `peak` streams were leased of late:
    /// half of them, if the others have room for that with a quarter to spare, all of them if there
    /// were no streams at all. Those above the maximum go in any case.
    pub fn surplus(self, bounds: Bounds, peak: u32) -> u32 {
        let excess = self.open.saturating_sub(bounds.max);
        if self.waiting > 0 || self.open == 0 {
            return excess;
        }
        if peak == 0 {
            return self.open;
        }
        let half = self.open.div_ceil(2).max(bounds.min);
        let each = self.room / self.open;
        let room = u64::from(half) * u64::from(each);
        let spare =
            if u64::from(peak) * 4 <= room * 3 { self.open.saturating_sub(half) } else { 0 };
        spare.max(excess)
    }
}

/// The most streams of late, of which a quarter is forgotten each time that nobody needs it.
pub fn decayed(peak: u32, leased: u32) -> u32 {
    leased.max(peak - peak.div_ceil(4))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { min: 1, max: 8, streams: 16 };

    fn census(open: u32, leased: u32, waiting: u32) -> Census {
        Census { open, leased, room: open * 16, waiting }
    }

    #[test]
    fn it_grows_by_doubling_as_far_as_the_streams_need_and_no_further() {
        let mut open = 0;
        let mut steps = Vec::new();
        loop {
            let wanted = census(open, open * 16, 100 - open * 16).wanted(BOUNDS);
            if wanted == open {
                break;
            }
            open = wanted;
            steps.push(open);
            if open * 16 >= 100 {
                break;
            }
        }
        assert_eq!(steps, [1, 2, 4, 7]);
        assert_eq!(census(7, 100, 0).wanted(BOUNDS), 7);
    }

    #[test]
    fn nothing_is_wanted_beyond_the_maximum_or_for_nobody() {
        assert_eq!(census(8, 128, 500).wanted(BOUNDS), 8);
        assert_eq!(census(0, 0, 0).wanted(BOUNDS), 0);
        assert_eq!(census(0, 0, 500).wanted(Bounds { max: 0, ..BOUNDS }), 0);
        assert_eq!(
            census(3, 0, 0).wanted(Bounds { max: 2, ..BOUNDS }),
            3,
            "closing is not its job"
        );
    }

    #[test]
    fn several_are_wanted_for_a_single_stream_where_that_is_asked_for() {
        let bounds = Bounds { min: 3, ..BOUNDS };
        assert_eq!(census(0, 0, 1).wanted(bounds), 1);
        assert_eq!(census(1, 1, 0).wanted(bounds), 2);
        assert_eq!(census(2, 1, 0).wanted(bounds), 3);
        assert_eq!(census(3, 1, 0).wanted(bounds), 3);
    }

    #[test]
    fn a_peer_that_allows_no_stream_is_not_dialled_again_and_again() {
        let census = Census { open: 1, leased: 0, room: 0, waiting: 5 };
        assert_eq!(census.wanted(BOUNDS), 1);
    }

    #[test]
    fn one_that_allows_no_stream_does_not_hide_that_the_others_are_full() {
        // One allows none, one allows one and has it.
        let census = Census { open: 2, leased: 1, room: 1, waiting: 1 };
        assert_eq!(census.wanted(BOUNDS), 4);
        // Whoever waits beside a full house is told that another is wanted.
        for open in 1..6 {
            for room in 1..40 {
                let census = Census { open, leased: room, room, waiting: 1 };
                assert!(census.wanted(BOUNDS) > open, "{census:?}");
            }
        }
    }

    #[test]
    fn nothing_overflows_at_the_largest_settings() {
        let (open, limit) = (1024, 65_534);
        let bounds = Bounds { min: 1, max: open, streams: limit };
        let room = open * limit;
        let census = Census { open, leased: room, room, waiting: (1 << 30) - 1 };
        assert_eq!(census.wanted(bounds), open);
        assert_eq!(census.surplus(bounds, u32::MAX), 0);
        let census = Census { open: 1, leased: u32::MAX, room: 1, waiting: u32::MAX };
        assert_eq!(census.wanted(Bounds { max: u32::MAX, ..bounds }), 2);
        assert_eq!(decayed(u32::MAX, 0), u32::MAX - u32::MAX.div_ceil(4));
    }

    #[test]
    fn those_above_a_lowered_maximum_go_whoever_waits() {
        let bounds = Bounds { max: 2, ..BOUNDS };
        assert_eq!(census(5, 80, 9).surplus(bounds, 80), 3);
        assert_eq!(census(5, 80, 0).surplus(bounds, 80), 3);
        assert_eq!(census(5, 80, 9).wanted(bounds), 5, "and none comes for them");
        assert_eq!(census(2, 32, 9).surplus(bounds, 80), 0);
    }

    #[test]
    fn half_go_when_the_others_have_room_to_spare() {
        // Four of eight take 64 streams; three quarters of that are 48.
        assert_eq!(census(8, 40, 0).surplus(BOUNDS, 48), 4);
        assert_eq!(census(8, 40, 0).surplus(BOUNDS, 49), 0);
        assert_eq!(census(8, 40, 1).surplus(BOUNDS, 40), 0, "somebody waits");
        assert_eq!(census(8, 1, 0).surplus(Bounds { min: 6, ..BOUNDS }, 1), 2);
        assert_eq!(census(1, 1, 0).surplus(BOUNDS, 1), 0);
        assert_eq!(census(3, 0, 0).surplus(BOUNDS, 0), 3, "all rest");
    }

    #[test]
    fn a_peak_is_forgotten_by_quarters() {
        let mut peak = 100;
        let steps: Vec<_> = (0..4)
            .map(|_| {
                peak = decayed(peak, 3);
                peak
            })
            .collect();
        assert_eq!(steps, [75, 56, 42, 31]);
        assert_eq!((decayed(1, 0), decayed(0, 0), decayed(0, 9)), (0, 0, 9));
    }
}
