use super::{Random, Share, quantile};
use crate::{
    error::Result,
    policy::{C_SRM, Levels},
    sequential::srm_ln_e,
};

/// ln E from which on the default policy gives an alarm.
fn alarm() -> f64 {
    -Levels::default().srm.ln()
}

/// Units until a cell that should get `share` and gets `real` raises the alarm, looked at every `step` units: median and
/// 95 % quantile of `runs`; runs that take more than `most` units count as that.
///
/// # Errors
/// When a share is no probability.
pub fn srm_speed(share: f64, real: f64, step: u64, most: u64, runs: u32, seed: u64) -> Result<(f64, f64)> {
    let mut random = Random::new(seed);
    let mut found = Vec::new();
    for _ in 0..runs {
        let (mut small, mut all) = (0, 0);
        while all < most {
            small += random.binomial(step, real);
            all += step;
            if srm_ln_e(&[small, all - small], &[share, 1.0 - share], C_SRM)? >= alarm() {
                break;
            }
        }
        found.push(all as f64);
    }
    Ok((quantile(&mut found, 0.5), quantile(&mut found, 0.95)))
}

/// Sound releases with an alarm within `looks` looks, `step` units apart.
///
/// # Errors
/// When a share is no probability.
pub fn srm_false_alarms(share: f64, step: u64, looks: u32, runs: u32, seed: u64) -> Result<Share> {
    let mut random = Random::new(seed);
    let mut alarms = Share { k: 0, n: runs };
    for _ in 0..runs {
        let (mut small, mut all) = (0, 0);
        for _ in 0..looks {
            small += random.binomial(step, share);
            all += step;
            if srm_ln_e(&[small, all - small], &[share, 1.0 - share], C_SRM)? >= alarm() {
                alarms.k += 1;
                break;
            }
        }
    }
    Ok(alarms)
}
