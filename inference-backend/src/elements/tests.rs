use super::{Element, parse};
use serde_json::value::RawValue;
use std::fmt::Debug;

fn read<T: Element>(shape: &[usize], data: &str) -> Result<Vec<T>, String> {
    let raw: &RawValue = serde_json::from_str(data).unwrap();
    parse(raw, shape)
}

fn error<T: Element + Debug>(shape: &[usize], data: &str) -> String {
    read::<T>(shape, data).unwrap_err()
}

#[test]
fn flat_and_nested_are_the_same() {
    let expected = Ok(vec![1, 2, 3, 4, 5, 6]);
    assert_eq!(read::<i32>(&[2, 3], "[1,2,3,4,5,6]"), expected);
    assert_eq!(read::<i32>(&[2, 3], " [ [1,2,3] , [4,5,6] ] "), expected);
    assert_eq!(read::<i32>(&[1, 3, 2], "[[[1,2],[3,4],[5,6]]]"), expected);
    assert_eq!(read::<i32>(&[6], "[1,2,3,4,5,6]"), expected);
}

#[test]
fn the_smallest_shapes() {
    assert_eq!(read::<f32>(&[], "[5]"), Ok(vec![5.0]));
    assert_eq!(read::<f32>(&[0], "[]"), Ok(vec![]));
    assert_eq!(read::<f32>(&[0, 64], "[]"), Ok(vec![]));
    assert_eq!(read::<f32>(&[2, 0], "[[],[]]"), Ok(vec![]));
    assert_eq!(read::<f32>(&[2, 0], "[]"), Ok(vec![]));
}

#[test]
fn every_integer_keeps_its_digits() {
    assert_eq!(
        read::<u64>(&[2], "[18446744073709551615,9007199254740993]"),
        Ok(vec![u64::MAX, 9_007_199_254_740_993])
    );
    assert_eq!(read::<i64>(&[2], "[-9223372036854775808,9223372036854775807]"), Ok(vec![i64::MIN, i64::MAX]));
    assert_eq!(read::<u8>(&[2], "[0,255]"), Ok(vec![0, 255]));
    assert_eq!(read::<i8>(&[2], "[-128,127]"), Ok(vec![-128, 127]));
}

#[test]
fn integers_that_do_not_fit() {
    assert_eq!(error::<u8>(&[2], "[0,256]"), "element 1 is 256, expected an integer from 0 to 255");
    assert_eq!(error::<u8>(&[1], "[-1]"), "element 0 is -1, expected an integer from 0 to 255");
    assert_eq!(error::<i8>(&[1], "[1.5]"), "element 0 is 1.5, expected an integer from -128 to 127");
    assert!(error::<i64>(&[1], "[9223372036854775808]").starts_with("element 0 is 9223372036854775808,"));
    assert!(error::<u64>(&[1], "[18446744073709551616]").starts_with("element 0 is 18446744073709552000,"));
}

#[test]
fn floats() {
    assert_eq!(read::<f32>(&[4], "[1,-2,0.5,1e-3]"), Ok(vec![1.0, -2.0, 0.5, 0.001]));
    assert_eq!(read::<f64>(&[2], "[1e308,-0.0]"), Ok(vec![1e308, -0.0]));
    assert_eq!(read::<f32>(&[1], "[16777217]"), Ok(vec![16_777_216.0]));
    assert!(error::<f32>(&[2], "[0,1e39]").starts_with("element 1 is 1000"));
    assert_eq!(
        error::<f64>(&[2], "[0,1e999]"),
        "element 1 is out of range, expected a number that fits FP64"
    );
}

#[test]
fn truth_values_are_not_numbers() {
    assert_eq!(read::<bool>(&[2], "[true,false]"), Ok(vec![true, false]));
    assert_eq!(error::<bool>(&[1], "[1]"), "element 0 is 1, expected true or false");
    assert_eq!(error::<f32>(&[1], "[true]"), "element 0 is true, expected a number that fits FP32");
}

#[test]
fn what_is_no_element() {
    assert_eq!(error::<f32>(&[1], "[null]"), "element 0 is null, expected a number that fits FP32");
    assert_eq!(error::<f32>(&[2], "[1,\"2\"]"), "element 1 is a string, expected a number that fits FP32");
    assert_eq!(error::<f32>(&[1], "[{}]"), "element 0 is an object, expected a number that fits FP32");
}

#[test]
fn what_is_no_array() {
    for (data, got) in
        [("1", "1"), ("null", "null"), ("\"x\"", "a string"), ("{}", "an object"), ("true", "true")]
    {
        assert_eq!(error::<f32>(&[1], data), format!("the data is {got}, expected an array"));
    }
}

#[test]
fn too_few_and_too_many() {
    assert_eq!(error::<f32>(&[2, 2], "[1,2,3]"), "the data has 3 elements, the shape [2, 2] needs 4");
    assert_eq!(error::<f32>(&[2, 2], "[1,2,3,4,5]"), "the data has 5 elements, the shape [2, 2] needs 4");
    assert_eq!(error::<f32>(&[1], "[]"), "the data has 0 elements, the shape [1] needs 1");
    assert_eq!(
        error::<f32>(&[usize::MAX], "[1]"),
        format!("the data has 1 elements, the shape [{}] needs {0}", usize::MAX)
    );
}

#[test]
fn nesting_that_differs_from_the_shape() {
    assert_eq!(error::<f32>(&[2, 2], "[[1,2],[3]]"), "data[1] has 1 elements, the shape [2, 2] needs 2");
    assert_eq!(error::<f32>(&[2, 2], "[[1,2]]"), "data has 1 elements, the shape [2, 2] needs 2");
    assert_eq!(error::<f32>(&[2, 2], "[[1,2],3]"), "data[1] is 3, expected an array");
    assert_eq!(error::<f32>(&[1, 1, 2], "[[1,2]]"), "data[0][0] is 1, expected an array");
    assert_eq!(
        error::<f32>(&[2, 2], "[1,[2,3,4]]"),
        "element 1 is an array, expected a number that fits FP32"
    );
    assert_eq!(error::<f32>(&[2], "[[1,2]]"), "element 0 is an array, expected a number that fits FP32");
    assert_eq!(error::<f32>(&[], "[[1]]"), "element 0 is an array, expected a number that fits FP32");
    assert_eq!(
        error::<f32>(&[1, 1], "[[[[[[1]]]]]]"),
        "element 0 is an array, expected a number that fits FP32"
    );
}

#[test]
fn deep_nesting_is_refused_early() {
    let data = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(error::<f32>(&[1, 1], &data).starts_with("element 0 is an array"));
}
