use super::*;

fn signature() -> Signature {
    let spec = |name: &str, datatype, shape: &[i64]| TensorSpec {
        name: name.to_owned(),
        datatype,
        shape: shape.to_vec(),
        symbols: shape.iter().map(|&size| if size < 0 { "n".to_owned() } else { String::new() }).collect(),
    };
    Signature {
        inputs: vec![spec("x", Datatype::Float32, &[-1, 2]), spec("mask", Datatype::Bool, &[-1])],
        outputs: vec![spec("a", Datatype::Float32, &[-1]), spec("b", Datatype::Int64, &[-1])],
    }
}

fn given(name: &'static str, datatype: &'static str, shape: &[i64]) -> Given<'static> {
    Given { name: name.into(), datatype: datatype.into(), shape: shape.to_vec(), data: Data::Binary(&[]) }
}

fn x() -> Given<'static> {
    given("x", "FP32", &[1, 2])
}

fn mask() -> Given<'static> {
    given("mask", "BOOL", &[1])
}

fn error(inputs: &[Given<'_>]) -> String {
    assign(inputs, &signature().inputs, &[]).map(|_| ()).unwrap_err()
}

#[test]
fn takes_inputs_in_any_order() {
    let (signature, inputs) = (signature(), [mask(), x()]);
    let assigned = assign(&inputs, &signature.inputs, &[]).map_err(|_| ()).unwrap();
    let names: Vec<_> = assigned.iter().map(|input| input.spec.name.as_str()).collect();
    assert_eq!(names, ["x", "mask"]);
    assert_eq!(assigned[0].shape, [1, 2]);
}

#[test]
fn says_which_input_is_wrong_and_how() {
    assert_eq!(error(&[x()]), r#"input "mask" (BOOL [-1]) is missing"#);
    assert_eq!(error(&[x(), mask(), x()]), r#"input "x" is given twice"#);
    assert_eq!(error(&[given("y", "FP32", &[1, 2])]), r#"unknown input "y"; the model takes "x", "mask""#);
    assert_eq!(
        error(&[given("x", "FP16", &[1, 2])]),
        r#"input "x": datatype "FP16" was given, "FP32" is expected"#
    );
    for shape in [&[1, 3][..], &[2], &[1, 2, 1], &[-1, 2], &[]] {
        assert_eq!(
            error(&[given("x", "FP32", shape)]),
            format!(r#"input "x": shape {shape:?} was given, [-1, 2] is expected (-1: any size)"#)
        );
    }
    assert_eq!(
        error(&[given("x", "FP32", &[i64::MAX, 2])]),
        format!(r#"input "x": shape [{}, 2] is too large"#, i64::MAX)
    );
}

#[test]
fn dimensions_of_one_name_have_one_size() {
    assert_eq!(
        error(&[x(), given("mask", "BOOL", &[2])]),
        r#"input "mask": dimension "n" is 2, but 1 in input "x""#
    );
}

#[test]
fn chooses_outputs() {
    let specs = signature().outputs;
    assert_eq!(outputs(&[], &specs), Ok(vec![0, 1]));
    assert_eq!(outputs(&["b".into()], &specs), Ok(vec![1]));
    assert_eq!(outputs(&["b".into(), "a".into()], &specs), Ok(vec![1, 0]));
    assert_eq!(
        outputs(&["c".into()], &specs).unwrap_err(),
        r#"unknown output "c"; the model gives "a", "b""#
    );
    assert_eq!(outputs(&["a".into(), "a".into()], &specs).unwrap_err(), r#"output "a" is asked for twice"#);
}
