//! Points in time and their parts in the Gregorian calendar.

use bincode::{Decode, Encode};

/// Nanoseconds since the Unix epoch, 1677-09-21 to 2262-04-11. The host gives the current one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Timestamp(pub i64);

/// Nanoseconds in a second.
pub const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;

impl Timestamp {
    /// A time in milliseconds since the Unix epoch; the ends of the range stand for what lies beyond.
    #[must_use]
    pub fn from_millis(milliseconds: i64) -> Self {
        Self(milliseconds.saturating_mul(1_000_000))
    }

    /// Milliseconds since the Unix epoch; 0 for what lies before it.
    #[must_use]
    pub fn unix_millis(self) -> u64 {
        u64::try_from(self.0 / 1_000_000).unwrap_or(0)
    }

    /// The date in UTC: year, month (from 1) and day of the month (from 1).
    #[must_use]
    pub fn date(self) -> (i64, i64, i64) {
        // Days since 0000-03-01, in eras of 400 years, years that start in March: then leap days come last
        // and every formula is a division (Howard Hinnant, "chrono-compatible low-level date algorithms").
        let days = self.0.div_euclid(DAY) + 719_468;
        let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        (year, month, day)
    }

    /// Days since the first of January, from 0.
    #[must_use]
    pub fn day_of_year(self) -> i64 {
        let (year, month, day) = self.date();
        let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        // Days before the month in a year that starts in March, turned back to one that starts in January.
        let before =
            if month <= 2 { 31 * (month - 1) } else { (153 * (month - 3) + 2) / 5 + 59 + i64::from(leap) };
        before + day - 1
    }

    /// Days since Sunday.
    #[must_use]
    pub fn day_of_week(self) -> i64 {
        // The epoch was a Thursday.
        (self.0.div_euclid(DAY) + 4).rem_euclid(7)
    }

    /// Nanoseconds since midnight.
    #[must_use]
    pub fn time_of_day(self) -> i64 {
        self.0.rem_euclid(DAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, date, day_of_year, day_of_week) in [
            (0, (1970, 1, 1), 0, 4),
            (-1, (1969, 12, 31), 364, 3),
            (951_782_400, (2000, 2, 29), 59, 2),
            (951_868_800, (2000, 3, 1), 60, 3),
            (1_704_067_199, (2023, 12, 31), 364, 0),
            (1_735_603_200, (2024, 12, 31), 365, 2),
            (4_107_542_400, (2100, 3, 1), 59, 1),
            (-9_223_372_036, (1677, 9, 21), 263, 2),
            (9_223_372_036, (2262, 4, 11), 100, 5),
        ] {
            let time = Timestamp(seconds * SECOND);
            assert_eq!(
                (time.date(), time.day_of_year(), time.day_of_week()),
                (date, day_of_year, day_of_week),
                "{seconds}"
            );
        }
    }

    #[test]
    fn the_time_of_day_counts_from_midnight_also_before_the_epoch() {
        assert_eq!(Timestamp(-1).time_of_day(), DAY - 1);
        assert_eq!(Timestamp(DAY + 5).time_of_day(), 5);
    }
}
