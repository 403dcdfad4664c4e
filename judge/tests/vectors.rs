//! Values that other implementations computed. `HALFTONE_JUDGE_VECTORS` names another file in the same form.

use halftone_judge::{
    fixed::{self, Alternative, Better, Comparison, Covariates, Effect, Kayenta, KayentaDirection, Moments},
    sequential::{
        self, BetaBinomial, Boundary, Design, EventShare, QuantileTest, Sides, Spending, beta_binomial,
    },
    special::{normal, student},
    stats::{Mean, Merge, Pair, PairSums, Proportion},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

type Answer = Result<Value, String>;

/// One row of the file.
#[derive(Deserialize)]
struct Vector {
    name: String,
    method: String,
    input: Input,
    expected: Map<String, Value>,
    tolerance: f64,
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Input(Map<String, Value>);

impl Input {
    fn value(&self, key: &str) -> Result<&Value, String> {
        self.0.get(key).ok_or_else(|| format!("no `{key}` in the input"))
    }

    fn read<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<T, String> {
        serde_json::from_value(self.value(key)?.clone()).map_err(|error| format!("`{key}`: {error}"))
    }

    fn number(&self, key: &str) -> Result<f64, String> {
        self.read(key)
    }

    /// Counts may be written as 1e9.
    #[allow(clippy::cast_possible_truncation, reason = "a whole number that is not negative")]
    fn count(&self, key: &str) -> Result<u64, String> {
        let number = self.number(key)?;
        if number >= 0.0 && number.fract() == 0.0 {
            Ok(number as u64)
        } else {
            Err(format!("`{key}`: {number}"))
        }
    }

    fn text(&self, key: &str) -> Result<String, String> {
        self.read(key)
    }

    fn arm(&self, key: &str) -> Result<Self, String> {
        self.read::<Map<String, Value>>(key).map(Self)
    }

    fn proportion(&self, key: &str) -> Result<Proportion, String> {
        let arm = self.arm(key)?;
        told(Proportion::new(arm.count("n")?, arm.count("k")?))
    }

    fn alternative(&self) -> Result<Alternative, String> {
        self.0.get("alternative").map_or(Ok(Alternative::TwoSided), |_| self.read("alternative"))
    }

    fn moments(&self, key: &str) -> Result<Moments, String> {
        let arm = self.arm(key)?;
        told(if arm.0.contains_key("k") {
            Moments::of_proportion(&self.proportion(key)?)
        } else if arm.0.contains_key("values") {
            Moments::of_mean(&Mean::of(&arm.read::<Vec<f64>>("values")?))
        } else if arm.0.contains_key("num_sum") {
            let sums = PairSums {
                x: arm.number("den_sum")?,
                y: arm.number("num_sum")?,
                xx: arm.number("den_sum_squares")?,
                yy: arm.number("num_sum_squares")?,
                xy: arm.number("num_den_sum_products")?,
            };
            Moments::of_ratio(&Pair::from_sums(arm.count("n")?, &sums))
        } else {
            let mean = Mean::from_sums(arm.count("n")?, arm.number("sum")?, arm.number("sum_squares")?);
            mean.and_then(|mean| Moments::of_mean(&mean))
        })
    }

    fn arms(&self) -> Result<(Moments, Moments), String> {
        Ok((self.moments("control")?, self.moments("treatment")?))
    }

    fn values(&self) -> Result<(Vec<f64>, Vec<f64>), String> {
        Ok((self.read("control")?, self.read("treatment")?))
    }
}

fn told<T>(result: halftone_judge::Result<T>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

fn comparison(test: Comparison) -> Value {
    json!({
        "diff": test.estimate, "lift": test.estimate, "se": test.se, "t": test.statistic, "df": test.df, "p": test.p,
        "ci": [test.low, test.high], "ci_lower": test.low, "ci_upper": test.high,
    })
}

/// What this crate answers. A method that is not here is a failure.
fn answer(method: &str, input: &Input) -> Answer {
    match method {
        "two_proportion_z" => {
            let (a, b) = (input.proportion("control")?, input.proportion("treatment")?);
            told(fixed::two_proportions(&a, &b, input.number("alpha")?)).map(comparison)
        }
        "fisher_exact" => {
            let log10_p =
                told(fixed::fisher_exact(&input.proportion("control")?, &input.proportion("treatment")?))?;
            Ok(json!({"log10_p": log10_p}))
        }
        "chi_square" => chi_square(input),
        "welch_t" => {
            let (a, b) = input.arms()?;
            told(fixed::welch(&a, &b, input.number("alpha")?, input.alternative()?)).map(comparison)
        }
        "relative_lift" => {
            let (a, b) = input.arms()?;
            let mut lift = comparison(told(fixed::relative_lift(&a, &b, input.number("alpha")?))?);
            lift["mean_control"] = a.mean.into();
            lift["mean_treatment"] = b.mean.into();
            Ok(lift)
        }
        "cuped" => cuped(input),
        "mann_whitney_shift" => {
            let (a, b) = input.values()?;
            let shift = told(fixed::shift_interval(&a, &b, input.number("confidence")?))?;
            Ok(json!({"ci": [shift.low, shift.high], "estimate": shift.estimate}))
        }
        "mann_whitney_test" => {
            let (a, b) = input.values()?;
            if input.0.contains_key("shifts") {
                let shifts: Vec<f64> = input.read("shifts")?;
                let z: Vec<f64> =
                    told(shifts.iter().map(|shift| fixed::shifted_z(&a, &b, *shift)).collect())?;
                return Ok(json!({"z": z}));
            }
            let test = told(fixed::mann_whitney(&a, &b, input.alternative()?))?;
            Ok(json!({"u": test.u, "p_exact": test.p_exact, "p_asymptotic": test.p_asymptotic}))
        }
        "kayenta_classify" => {
            let (a, b) = input.values()?;
            let settings = Kayenta {
                tolerance: input.number("tolerance")?,
                confidence: input.number("confidence")?,
                direction: input.read::<KayentaDirection>("direction")?,
                effect_size: input.read("effect_size")?,
                measure: input.read::<Effect>("measure")?,
            };
            Ok(json!({"verdict": told(fixed::classify(&a, &b, &settings))?}))
        }
        "sequential_srm" => sequential_srm(input),
        "asymptotic_cs" => asymptotic_cs(input),
        "normal_mixture" => normal_mixture(input),
        "beta_binomial" => {
            let (k, n) = (input.number("k")?, input.number("n")?);
            let test = told(BetaBinomial::new(input.number("p0")?, weight(input)?))?;
            let mut answer = json!({"log_e": test.ln_e(k, n)});
            if input.0.contains_key("alpha") {
                answer["k_bound"] = told(test.count_bound(n, input.number("alpha")?))?.into();
            }
            Ok(answer)
        }
        "bernoulli_cs" => {
            let arm = told(Proportion::new(input.count("n")?, input.count("k")?))?;
            let (low, high) =
                told(beta_binomial::bernoulli_cs(&arm, input.number("alpha")?, weight(input)?))?;
            Ok(json!({"ci": [low, high]}))
        }
        "event_share" => {
            let test = told(EventShare::new(input.number("pi")?, 0.0, input.number("c")?))?;
            Ok(json!({"log_e": told(test.ln_e_worse(input.count("k")?, input.count("m")?))?}))
        }
        "quantile_test" => {
            let range = |key: &str| -> Result<Vec<f64>, String> {
                let arm = input.arm(key)?;
                Ok((arm.count("first")?..=arm.count("last")?).map(|x| x as f64).collect())
            };
            let test =
                QuantileTest::new(input.number("q")?, input.number("t_opt")?, input.number("alpha_opt")?);
            Ok(json!({"p": told(told(test)?.p_two_sided_raw(&range("control")?, &range("treatment")?))?}))
        }
        "group_sequential_bounds" => group_sequential_bounds(input),
        "crossing_probability" => {
            let looks = input.count("looks")?;
            let times: Vec<f64> = (1..=looks).map(|look| look as f64 / looks as f64).collect();
            let upper = vec![input.number("z_upper")?; times.len()];
            let z_lower =
                if input.0.contains_key("z_lower") { input.read::<Option<f64>>("z_lower")? } else { None };
            let lower = z_lower.map(|z| vec![z; times.len()]);
            let crossing =
                sequential::crossing_probability(&times, &upper, lower.as_deref(), input.number("drift")?);
            let crossing = told(crossing)?;
            Ok(json!({"upper": crossing.total_upper(), "total": crossing.total()}))
        }
        "group_sequential_inflation" => {
            let looks = usize::try_from(input.count("looks")?).map_err(|error| error.to_string())?;
            let (design, alpha) = (design(input)?, input.number("alpha")?);
            let r = told(sequential::inflation(design, looks, alpha, input.number("power")?))?;
            let bounds = told(design.bounds(looks, alpha))?;
            let idle = told(sequential::characteristics(&bounds, 0.0))?;
            Ok(json!({"max_n_percent": 100.0 * r, "asn_h0_percent": 100.0 * r * idle.expected_time}))
        }
        "multiplicity" => {
            let p: Vec<f64> = input.read("p")?;
            let (holm, bh, all) = (fixed::holm(&p), fixed::benjamini_hochberg(&p), fixed::bonferroni(&p));
            Ok(match input.text("kind")?.as_str() {
                "holm" => json!({"adjusted": holm}),
                "benjamini_hochberg" => json!({"adjusted": bh}),
                "bonferroni" => json!({"adjusted": all}),
                "rejections" => {
                    let level = input.number("level").or_else(|_| input.number("alpha"))?;
                    let count = |adjusted: &[f64]| fixed::rejections(adjusted, level);
                    json!({"benjamini_hochberg": count(&bh), "bonferroni": count(&all), "holm": count(&holm)})
                }
                other => return Err(format!("unknown kind {other}")),
            })
        }
        "non_inferiority" => {
            let (a, b) = input.arms()?;
            let (margin, better) = (input.number("margin_relative")?, input.read::<Better>("better")?);
            let test = told(fixed::non_inferiority(&a, &b, margin, better, input.number("alpha")?))?;
            let limit = test.limit;
            Ok(json!({
                "diff": test.estimate, "ci_lower": limit, "ci_upper": limit, "non_inferior": test.non_inferior,
            }))
        }
        "power_two_proportions" => {
            let (p1, p2, alpha) = (input.number("p1")?, input.number("p2")?, input.number("alpha")?);
            Ok(if input.0.contains_key("n") {
                json!({"power": told(fixed::power_two_proportions(p1, p2, input.number("n")?, alpha))?})
            } else {
                json!({"n": told(fixed::proportions_per_arm(p1, p2, alpha, input.number("power")?))?})
            })
        }
        "mean_variance_merge" => {
            let repeat: Vec<f64> = input.read("repeat")?;
            let times = usize::try_from(input.count("times")?).map_err(|error| error.to_string())?;
            let split = usize::try_from(input.count("split")?).map_err(|error| error.to_string())?;
            let values: Vec<f64> =
                std::iter::once(input.number("first")?).chain(repeat.repeat(times)).collect();
            let (left, right) = values.split_at(split);
            let whole = told(Mean::of(left).merge(&Mean::of(right)))?;
            Ok(json!({"mean": whole.mean, "sd": whole.variance().map(f64::sqrt)}))
        }
        "normal_tail" => Ok(json!({"log10_p": normal::log10_upper_tail(input.number("z")?)})),
        "student_t_quantile" => {
            Ok(json!({"t": told(student::quantile(input.number("p")?, input.number("df")?))?}))
        }
        unknown => Err(format!("unknown method {unknown}")),
    }
}

/// c, or what it follows from.
fn weight(input: &Input) -> Result<f64, String> {
    if input.0.contains_key("c") {
        input.number("c")
    } else {
        told(beta_binomial::tuning(input.number("t_opt")?, input.number("alpha_opt")?))
    }
}

fn chi_square(input: &Input) -> Answer {
    let test = match input.text("kind")?.as_str() {
        "goodness_of_fit" => {
            fixed::goodness_of_fit(&input.read::<Vec<u64>>("observed")?, &input.read::<Vec<f64>>("weights")?)
        }
        "homogeneity" => {
            let (k, n): (Vec<u64>, Vec<u64>) = (input.read("k")?, input.read("n")?);
            let arms: Vec<_> = k.into_iter().zip(n).map(|(k, n)| Proportion { n, k }).collect();
            fixed::homogeneity(&arms)
        }
        other => return Err(format!("unknown kind {other}")),
    };
    Ok(json!(told(test)?))
}

fn cuped(input: &Input) -> Answer {
    let arm = |key: &str| -> Result<Pair, String> {
        let arm = input.arm(key)?;
        let sums = PairSums {
            x: arm.number("x_sum")?,
            y: arm.number("y_sum")?,
            xx: arm.number("x_sum_squares")?,
            yy: arm.number("y_sum_squares")?,
            xy: arm.number("xy_sum")?,
        };
        Ok(Pair::from_sums(arm.count("n")?, &sums))
    };
    let kind = if input.read("binomial")? { Covariates::Binomial } else { Covariates::Continuous };
    told(fixed::cuped_lift(&arm("control")?, &arm("treatment")?, kind, 0.05)).map(comparison)
}

fn sequential_srm(input: &Input) -> Answer {
    let (batches, weights): (Vec<Vec<u64>>, Vec<f64>) = (input.read("batches")?, input.read("weights")?);
    let mut prior: Vec<f64> = input.read("prior")?;
    let (mut m1, mut m0) = (Vec::new(), Vec::new());
    let (mut sum1, mut sum0) = (0.0, 0.0);
    for batch in batches {
        sum1 += told(sequential::dirichlet_multinomial_ln(&batch, &prior))?;
        sum0 += told(sequential::multinomial_ln(&batch, &weights))?;
        prior.iter_mut().zip(&batch).for_each(|(a, x)| *a += *x as f64);
        m1.push(sum1);
        m0.push(sum0);
    }
    Ok(json!({"log_m1": m1, "log_m0": m0}))
}

fn asymptotic_cs(input: &Input) -> Answer {
    let (a, b) = input.arms()?;
    let alpha = input.number("alpha")?;
    let test = match input.text("difference")?.as_str() {
        "absolute" => fixed::welch(&a, &b, alpha, Alternative::TwoSided),
        "relative" => fixed::relative_lift(&a, &b, alpha),
        other => return Err(format!("unknown difference {other}")),
    };
    let test = told(test)?;
    let sides = if input.count("sides")? == 1 { Sides::One } else { Sides::Two };
    let n = (a.n + b.n) as f64;
    let cs =
        told(sequential::asymptotic_cs(test.estimate, test.se, n, alpha, input.number("n_star")?, sides))?;
    Ok(json!({
        "estimate": cs.estimate, "se": cs.se, "p": cs.p, "ci": [cs.low, cs.high],
        "ci_lower": cs.low, "ci_upper": cs.high,
    }))
}

fn normal_mixture(input: &Input) -> Answer {
    let kind = input.text("kind")?;
    if kind == "msprt" {
        let (sigma, tau) = (input.number("sigma")?, input.number("tau")?);
        let ln_e = sequential::msprt_ln_e(input.number("diff")?, input.number("n_per_arm")?, sigma, tau);
        return Ok(json!({"log_e": told(ln_e)?}));
    }
    let (s, v, alpha) = (input.number("s")?, input.number("v")?, input.number("alpha")?);
    let (v_opt, alpha_opt) = (input.number("v_opt")?, input.number("alpha_opt")?);
    let (rho, ln_e, bound) = if kind == "one_sided" {
        let rho = told(sequential::mixture_rho(v_opt, 2.0 * alpha_opt))?;
        (rho, sequential::one_sided_ln_e(s, v, rho), sequential::one_sided_bound(v, rho, alpha))
    } else {
        let rho = told(sequential::mixture_rho(v_opt, alpha_opt))?;
        (rho, sequential::mixture_ln_e(s, v, rho), sequential::mixture_bound(v, rho, alpha))
    };
    Ok(json!({"rho": rho, "log_e": told(ln_e)?, "bound": told(bound)?}))
}

fn design(input: &Input) -> Result<Design, String> {
    Ok(match input.text("design")?.as_str() {
        "lan_demets_power" => Design::LanDeMets(Spending::Power(input.number("phi")?)),
        "lan_demets_obf" => Design::LanDeMets(Spending::ObrienFleming),
        "lan_demets_pocock" => Design::LanDeMets(Spending::Pocock),
        "classic_obf" => Design::ClassicObrienFleming,
        "classic_pocock" => Design::ClassicPocock,
        other => return Err(format!("unknown design {other}")),
    })
}

fn group_sequential_bounds(input: &Input) -> Answer {
    let alpha = input.number("alpha")?;
    let z = match design(input)? {
        Design::LanDeMets(spending) => {
            let two_sided = input.count("sides")? == 2;
            let mut boundary = told(Boundary::new(spending, alpha, two_sided))?;
            let times: Vec<f64> = input.read("t")?;
            told(times.iter().map(|t| boundary.look(*t)).collect::<halftone_judge::Result<Vec<_>>>())?
        }
        classic => told(
            classic.bounds(usize::try_from(input.count("looks")?).map_err(|error| error.to_string())?, alpha),
        )?,
    };
    let nominal: Vec<f64> = z.iter().map(|z| 2.0 * normal::upper_tail(*z)).collect();
    let mut answer = json!({"z": z, "nominal_p": nominal});
    if input.0.contains_key("control") {
        let (a, b) = input.arms()?;
        let test = told(fixed::welch(&a, &b, alpha, Alternative::TwoSided))?;
        let half = z.last().copied().unwrap_or_default() * test.se;
        answer["diff"] = test.estimate.into();
        answer["ci"] = json!([test.estimate - half, test.estimate + half]);
    }
    Ok(answer)
}

/// Numbers within the tolerance, lists element by element, everything else exactly.
fn agrees(computed: &Value, expected: &Value, tolerance: f64) -> bool {
    match (computed, expected) {
        (Value::Array(computed), Value::Array(expected)) => {
            computed.len() == expected.len()
                && computed.iter().zip(expected).all(|(c, e)| agrees(c, e, tolerance))
        }
        (Value::Number(computed), Value::Number(expected)) => {
            let (Some(computed), Some(expected)) = (computed.as_f64(), expected.as_f64()) else {
                return false;
            };
            (computed - expected).abs() <= tolerance
        }
        _ => computed == expected,
    }
}

fn failures(text: &str) -> Vec<String> {
    let vectors: Vec<Vector> = serde_json::from_str(text).expect("the vectors are a JSON array of rows");
    assert!(!vectors.is_empty(), "no vectors");
    let mut failures = Vec::new();
    for Vector { name, method, input, expected, tolerance } in &vectors {
        match answer(method, input) {
            Err(error) => failures.push(format!("{name}: {error}")),
            Ok(computed) => {
                for (key, expected) in expected {
                    let computed = computed.get(key).unwrap_or(&Value::Null);
                    if !agrees(computed, expected, *tolerance) {
                        failures
                            .push(format!("{name}: {key} is {computed} instead of {expected} ± {tolerance}"));
                    }
                }
            }
        }
    }
    failures
}

#[test]
fn vectors() {
    let text = match std::env::var_os("HALFTONE_JUDGE_VECTORS") {
        Some(path) => std::fs::read_to_string(path).expect("the file that HALFTONE_JUDGE_VECTORS names"),
        None => include_str!("vectors.json").to_owned(),
    };
    let failures = failures(&text);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A harness that passes everything proves nothing.
#[test]
fn a_wrong_value_and_an_unknown_method_are_failures() {
    for row in [
        r#"{"name": "a", "method": "normal_tail", "input": {"z": 10}, "expected": {"log10_p": -23.2}, "tolerance": 1e-3}"#,
        r#"{"name": "a", "method": "normal_tail", "input": {"z": 10}, "expected": {"other": 1}, "tolerance": 1e-3}"#,
        r#"{"name": "a", "method": "horoscope", "input": {}, "expected": {}, "tolerance": 1}"#,
        r#"{"name": "a", "method": "normal_tail", "input": {}, "expected": {}, "tolerance": 1}"#,
    ] {
        assert_eq!(failures(&format!("[{row}]")).len(), 1, "{row}");
    }
}
