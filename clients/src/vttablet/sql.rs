//! Statements that a vttablet runs for us: for what it has no call of its own.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use vtorc_core::ports::CommandError;

use super::calls::{CallError, Caller};
use crate::interface::query::QueryResult;
use crate::interface::tabletmanagerdata::{
    ExecuteFetchAsDbaRequest, ExecuteMultiFetchAsDbaRequest,
};
use crate::mysql::{Row, SYNTAX_ERROR, column_text};

/// More rows than this are an error of the vttablet's.
const ROWS_MAX: u64 = 10_000;
/// A statement that is given up is ended within this or not at all: the caller waits for it.
const END_PATIENCE: Duration = Duration::from_millis(300);

impl Caller<'_> {
    /// Runs a statement as the vttablet's administrator and answers its rows.
    pub(crate) async fn rows(&self, statement: &str) -> Result<Vec<Row>, CallError> {
        let message = ExecuteFetchAsDbaRequest {
            query: statement.as_bytes().to_vec(),
            max_rows: ROWS_MAX,
            ..Default::default()
        };
        let mut client = self.client.clone();
        let sent = client.execute_fetch_as_dba(self.request(message));
        let answer = self.answer("ExecuteFetchAsDba", sent).await?;
        Ok(answer.result.map(text_rows).unwrap_or_default())
    }

    /// Runs a statement. `what` names it in errors.
    pub(crate) async fn run(&self, what: &str, statement: &str) -> Result<(), CommandError> {
        self.run_once(statement).await.map_err(|error| named(what, error))
    }

    /// One that is given up would run on, and do what it says when nobody reckons with it any more. So its thread is
    /// ended, where that can be done at once; a mark tells it from others with the same words.
    async fn run_once(&self, statement: &str) -> Result<(), CallError> {
        let mark = format!("vtorc {:016x}", RandomState::new().hash_one(statement));
        let outcome = self.rows(&format!("{statement} /* {mark} */")).await;
        if outcome == Err(CallError::TimedOut) {
            // Nothing is known of the statement either way.
            let _ = self.end_marked(&mark).await;
        }
        outcome.map(|_| ())
    }

    async fn end_marked(&self, mark: &str) -> Result<(), CallError> {
        let caller = Caller::new(self.connections, self.address, END_PATIENCE)?;
        let marked = format!(
            "SELECT ID AS id FROM information_schema.PROCESSLIST \
             WHERE INFO LIKE '%/* {mark} */' AND ID <> CONNECTION_ID()"
        );
        for row in caller.rows(&marked).await? {
            caller.rows(&format!("KILL {}", column_text(&row, "id"))).await?;
        }
        Ok(())
    }

    /// Runs a statement that older servers may not know; then runs the other.
    pub(crate) async fn run_either(
        &self,
        what: &str,
        new: &str,
        old: &str,
    ) -> Result<(), CommandError> {
        match self.run_once(new).await {
            Err(error) if error.is_refusal(&[SYNTAX_ERROR]) => self.run(what, old).await,
            Err(error) => Err(named(what, error)),
            Ok(()) => Ok(()),
        }
    }

    /// Runs statements one after another over one connection.
    pub(crate) async fn run_all(
        &self,
        what: &str,
        statements: &[String],
    ) -> Result<(), CommandError> {
        let message = ExecuteMultiFetchAsDbaRequest {
            sql: statements.join("; ").into_bytes(),
            max_rows: ROWS_MAX,
            ..Default::default()
        };
        let mut client = self.client.clone();
        let sent = client.execute_multi_fetch_as_dba(self.request(message));
        self.answer("ExecuteMultiFetchAsDba", sent)
            .await
            .map(|_| ())
            .map_err(|error| named(what, error))
    }
}

fn named(what: &str, error: CallError) -> CommandError {
    match error.into_command_error() {
        CommandError::Unreached(failure) => CommandError::Unreached(failure),
        CommandError::NotDone(why) => CommandError::NotDone(format!("{what}: {why}")),
        CommandError::Unknown(why) => CommandError::Unknown(format!("{what}: {why}")),
    }
}

/// Rows as text by lower-case column name. A row whose lengths lie is cut short.
fn text_rows(result: QueryResult) -> Vec<Row> {
    let names: Vec<String> =
        result.fields.iter().map(|field| field.name.to_ascii_lowercase()).collect();
    let text = |row: crate::interface::query::Row| {
        let mut rest = row.values.as_slice();
        let values = row.lengths.iter().map(move |length| {
            let length = usize::try_from(*length).ok()?;
            let (value, after) = rest.split_at_checked(length)?;
            rest = after;
            Some(String::from_utf8_lossy(value).into_owned())
        });
        names.iter().cloned().zip(values).collect()
    };
    result.rows.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interface::query::{Field, Row};

    #[test]
    fn rows_are_cut_by_their_lengths() {
        let field = |name: &str| Field { name: name.into() };
        let result = QueryResult {
            fields: vec![field("ID"), field("state"), field("info")],
            rows: vec![
                Row { lengths: vec![2, -1, 3], values: b"42abc".to_vec() },
                Row { lengths: vec![1, 9, 1], values: b"7".to_vec() },
            ],
            ..Default::default()
        };
        let rows = text_rows(result);
        assert_eq!(rows[0]["id"].as_deref(), Some("42"));
        assert_eq!((&rows[0]["state"], rows[0]["info"].as_deref()), (&None, Some("abc")));
        assert_eq!((rows[1]["id"].as_deref(), &rows[1]["state"]), (Some("7"), &None));
    }
}
