//! Runs requests in a session: one, or several together as one batch.

use crate::{
    batch_spans::BatchSpans,
    datatype::Datatype,
    failure::Failure,
    job::{Job, Outcome},
    output::Output,
    signature::Signature,
};
use ort::{
    ErrorCode,
    session::{OutputSelector, RunOptions, Session, SessionInputValue},
    value::DynValue,
};
use std::{borrow::Cow, collections::BTreeSet, time::SystemTime};

/// What is run, for whom.
#[derive(Clone, Copy, Debug)]
pub struct Runner<'a> {
    /// Name and version, for errors: `digits:2`.
    pub label: &'a str,
    /// What the model takes and gives.
    pub signature: &'a Signature,
}

impl Runner<'_> {
    /// Runs jobs that fit each other, and answers them.
    ///
    /// What fails together is run again one by one: one request's values must not cost the others their answers.
    pub fn run(self, session: &mut Session, mut jobs: Vec<Job>) {
        let mut spans = BatchSpans::begin(&mut jobs);
        if jobs.len() > 1 {
            let since = SystemTime::now();
            let together = self.together(session, &jobs);
            spans.ran_together(since, &together);
            match together {
                Ok(answers) => {
                    // Before the requests can end.
                    drop(spans);
                    jobs.into_iter().zip(answers).for_each(|(job, answer)| job.answer(Ok(answer)));
                    return;
                }
                Err(failure) => {
                    tracing::debug!(model = self.label, %failure, jobs = jobs.len(), "a batch failed; one by one");
                }
            }
        }
        for (index, job) in jobs.drain(..).enumerate() {
            let since = SystemTime::now();
            let outcome = self.one(session, &job.request.inputs, &job.request.outputs);
            spans.ran_alone(index, since, &outcome);
            job.answer(outcome);
        }
    }

    /// Runs one set of inputs; gives the outputs in the order of their indices.
    ///
    /// # Errors
    /// When the values do not please the model, or it fails.
    pub fn one(self, session: &mut Session, inputs: &[DynValue], outputs: &[usize]) -> Outcome {
        let named: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = self
            .signature
            .inputs
            .iter()
            .zip(inputs)
            .map(|(spec, value)| (Cow::from(spec.name.as_str()), value.into()))
            .collect();
        let selected = outputs.iter().filter_map(|&index| self.signature.outputs.get(index));
        let selector = selected.fold(OutputSelector::no_default(), |s, spec| s.with(spec.name.as_str()));
        let options = RunOptions::new().map_err(|e| self.failed(&e))?.with_outputs(selector);
        let mut values = session.run_with_options(named, &options).map_err(|error| match error.code() {
            // Such as an index beyond the end of a table: the values are wrong, not the model.
            ErrorCode::InvalidArgument => {
                Failure::BadRequest(format!("{} refuses the inputs: {error}", self.label))
            }
            _ => self.failed(&error),
        })?;
        outputs
            .iter()
            .map(|&index| {
                let name = self.signature.outputs.get(index).map_or("", |spec| spec.name.as_str());
                let value = values.remove(name).filter(|value| value.dtype().is_tensor());
                let value = value.ok_or_else(|| self.failed(&format!("output {name:?} is no tensor")))?;
                Ok(Output::whole(index, value))
            })
            .collect()
    }

    /// Runs all as one; gives each its rows of the outputs that it asked for.
    fn together(self, session: &mut Session, jobs: &[Job]) -> Result<Vec<Vec<Output>>, Failure> {
        let rows: usize = jobs.iter().map(Job::rows).sum();
        let inputs = self
            .signature
            .inputs
            .iter()
            .enumerate()
            .map(|(index, spec)| join(spec.datatype, rows, jobs, index).map_err(|e| self.failed(&e)))
            .collect::<Result<Vec<_>, _>>()?;
        let wanted: BTreeSet<usize> =
            jobs.iter().flat_map(|job| job.request.outputs.iter().copied()).collect();
        let wanted: Vec<usize> = wanted.into_iter().collect();
        let outputs = self.one(session, &inputs, &wanted)?;
        for output in &outputs {
            if output.shape.first().and_then(|&first| usize::try_from(first).ok()) != Some(rows) {
                let spec = output.spec(self.signature);
                let shape = &output.shape;
                return Err(self.failed(&format!("output {:?} of {rows} rows is {shape:?}", spec.name)));
            }
        }
        let mut start = 0;
        let share = |job: &Job| {
            let end = start + job.rows();
            let of = |index: &usize| {
                let output = outputs.iter().find(|output| output.index == *index);
                output.map(|output| output.rows(start..end))
            };
            let answer = job.request.outputs.iter().filter_map(of).collect();
            start = end;
            answer
        };
        Ok(jobs.iter().map(share).collect())
    }

    fn failed(self, error: &impl ToString) -> Failure {
        Failure::Internal(format!("{} failed: {}", self.label, error.to_string()))
    }
}

/// The jobs' tensors of one input as one tensor.
fn join(datatype: Datatype, rows: usize, jobs: &[Job], input: usize) -> Result<DynValue, String> {
    let values = || jobs.iter().filter_map(|job| job.request.inputs.get(input));
    let first = values().next().ok_or("no input")?;
    let rest = first.shape().iter().skip(1).map(|&size| usize::try_from(size).unwrap_or_default());
    let shape: Vec<usize> = std::iter::once(rows).chain(rest).collect();
    datatype.join(&shape, values())
}
