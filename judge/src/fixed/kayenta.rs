//! Verdicts as Kayenta's canary judge gives them, for those who migrate: to see what it would have said. It passes
//! sparse errors, seven bad points of ten and changes of shape; no policy of ours asks it.

use super::mann_whitney::{check, median_difference, z_of};
use crate::{
    error::{Error, Result, probability},
    special::normal,
};
use serde::{Deserialize, Serialize};

/// Which changes Kayenta minds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KayentaDirection {
    /// Both.
    #[default]
    Either,
    /// Rises.
    Increase,
    /// Falls.
    Decrease,
}

/// How Kayenta measures the size of an effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Effect {
    /// Mean of treatment over mean of control.
    #[default]
    MeanRatio,
    /// Common language effect size: the chance that a value of treatment exceeds one of control.
    Cles,
}

/// A metric's settings in Kayenta.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kayenta {
    /// Share of the estimated shift that is tolerated.
    pub tolerance: f64,
    /// Confidence of the interval.
    pub confidence: f64,
    /// Which changes count.
    pub direction: KayentaDirection,
    /// Effect sizes [low, high] between which a change is let pass.
    pub effect_size: [f64; 2],
    /// How the effect is measured.
    pub measure: Effect,
}

/// Kayenta's verdict on a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Classification {
    /// Nothing to mind.
    Pass,
    /// Treatment is too high.
    High,
    /// Treatment is too low.
    Low,
    /// An arm has no values.
    Nodata,
}

/// Classifies a metric as spinnaker/kayenta does. Where each side is constant, the estimated shift is compared with
/// the tolerance: Kayenta adds random noise there.
///
/// Source: spinnaker/kayenta, `MannWhitneyClassifier`.
///
/// # Errors
/// When a value or a setting is no finite number, or there are more than 2²⁵ pairs of values.
pub fn classify(control: &[f64], treatment: &[f64], settings: &Kayenta) -> Result<Classification> {
    probability("confidence", settings.confidence)?;
    let [low, high] = settings.effect_size;
    if ![settings.tolerance, low, high].iter().all(|number| number.is_finite()) {
        return Err(Error::malformed("a tolerance or effect size that is no finite number"));
    }
    if control.is_empty() || treatment.is_empty() {
        return Ok(Classification::Nodata);
    }
    check(control, treatment)?;
    let sorted = |values: &[f64]| {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted
    };
    let (a, b) = (sorted(control), sorted(treatment));
    let constant = |values: &[f64]| values.first() == values.last();
    let same_constant = constant(&a) && constant(&b) && a.first() == b.first();
    if a == b || same_constant {
        return Ok(Classification::Pass);
    }
    let estimate = median_difference(control, treatment);
    let cut = settings.tolerance * estimate.abs();
    let (above, below) = if constant(&a) && constant(&b) {
        (estimate > cut, estimate < -cut)
    } else {
        let z = normal::upper_quantile((1.0 - settings.confidence) / 2.0)?;
        (z_of(control, treatment, cut) > z, z_of(control, treatment, -cut) < -z)
    };
    let effect = effect(control, treatment, settings.measure);
    let allows = |other: KayentaDirection| settings.direction != other;
    Ok(if allows(KayentaDirection::Decrease) && above && effect.is_none_or(|size| size >= high) {
        Classification::High
    } else if allows(KayentaDirection::Increase) && below && effect.is_none_or(|size| size <= low) {
        Classification::Low
    } else {
        Classification::Pass
    })
}

/// The size of the effect; `None` where it has no meaning, and the check is skipped.
fn effect(control: &[f64], treatment: &[f64], measure: Effect) -> Option<f64> {
    match measure {
        Effect::MeanRatio => {
            let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
            let (a, b) = (mean(control), mean(treatment));
            (a != 0.0 && b != 0.0).then(|| b / a)
        }
        Effect::Cles => {
            let wins = |x: &f64| -> f64 {
                control
                    .iter()
                    .map(|y| {
                        if x > y {
                            1.0
                        } else if x == y {
                            0.5
                        } else {
                            0.0
                        }
                    })
                    .sum()
            };
            Some(treatment.iter().map(wins).sum::<f64>() / (control.len() as f64 * treatment.len() as f64))
        }
    }
}
