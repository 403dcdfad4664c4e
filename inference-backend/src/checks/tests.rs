use super::*;
use serde_json::json;

fn signature() -> Signature {
    let spec = |name: &str, datatype, shape: &[i64]| TensorSpec {
        name: name.to_owned(),
        datatype,
        shape: shape.to_vec(),
        symbols: vec![String::new(); shape.len()],
    };
    Signature {
        inputs: Vec::new(),
        outputs: vec![spec("score", Datatype::Float32, &[-1, 2]), spec("name", Datatype::String, &[-1])],
    }
}

#[test]
fn says_what_does_not_fit_the_model() {
    for (config, problem) in [
        (
            json!({ "confidence": "scores" }),
            r#"checks.confidence: unknown output "scores"; the model gives "score", "name""#,
        ),
        (
            json!({ "confidence": "name" }),
            r#"checks.confidence: output "name" is BYTES, which are no numbers"#,
        ),
        (
            json!({ "outputs": { "x": { "min": 1 } } }),
            r#"checks.outputs: unknown output "x"; the model gives "score", "name""#,
        ),
        (
            json!({ "outputs": { "score": {} } }),
            "checks.outputs.score: it asks for nothing; give min, max or distribution",
        ),
        (
            json!({ "outputs": { "score": { "min": 2, "max": 1 } } }),
            "checks.outputs.score: min is 2, more than max, which is 1",
        ),
    ] {
        let config: ChecksConfig = serde_json::from_value(config).unwrap();
        assert_eq!(Checks::new(&config, &signature()).unwrap_err(), problem);
    }
    for unknown in [json!({ "nans": true }), json!({ "outputs": { "score": { "minimum": 1 } } })] {
        assert!(serde_json::from_value::<ChecksConfig>(unknown).is_err());
    }
    let good = json!({ "confidence": "score", "outputs": { "score": { "max": 1, "distribution": true } } });
    let checks = Checks::new(&serde_json::from_value(good).unwrap(), &signature()).unwrap();
    assert_eq!((checks.metric(0), checks.metric(1)), (Some("output:score"), None));
}
