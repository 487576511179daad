//! The page of a folder that is still being filled, served to this computer alone.
//!
//! The page asks for the folder's [`state`] every few seconds, and for itself when that has changed.
//! It shows true labels in its cases, so only requests that name this computer are answered: another
//! site's name that was made to point here (DNS rebinding) is not.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
};

use anyhow::{Result, anyhow};
use tiny_http::{Header, Method, Request, Response, Server};

use super::{gather::Gatherer, render};

/// What an answer to a request is made of.
type Answer = Response<std::io::Cursor<Vec<u8>>>;

/// Serves until the process is ended.
///
/// # Errors
/// When the port cannot be had.
pub(super) fn serve(port: u16, dir: &Path, data: &[PathBuf]) -> Result<()> {
    let server = Server::http(("127.0.0.1", port)).map_err(|err| {
        anyhow!("port {port} of 127.0.0.1 cannot be had ({err}); name another: --watch=PORT")
    })?;
    let address = server.server_addr();
    crate::report::print(&format!("http://{address} shows {}; Ctrl-C ends it\n", dir.display()))?;
    let mut site = Site { dir, data, gatherer: Gatherer::default(), page: None };
    for request in server.incoming_requests() {
        let answer = site.answer(&request);
        if let Err(err) = request.respond(answer) {
            tracing::debug!("a browser left: {err}");
        }
    }
    Ok(())
}

struct Site<'a> {
    dir: &'a Path,
    data: &'a [PathBuf],
    gatherer: Gatherer,
    /// The newest page, with the state that it shows.
    page: Option<(String, String)>,
}

impl Site<'_> {
    fn answer(&mut self, request: &Request) -> Answer {
        if *request.method() != Method::Get || !is_for_us(request) {
            return Response::from_string("only this computer's browser is served\n")
                .with_status_code(403);
        }
        match request.url() {
            "/" => match self.page() {
                Ok(page) => typed(page, "text/html; charset=utf-8"),
                Err(err) => Response::from_string(format!("{err:#}\n")).with_status_code(500),
            },
            "/state" => typed(state(self.dir), "text/plain"),
            _ => Response::from_string("there is only one page: /\n").with_status_code(404),
        }
    }

    fn page(&mut self) -> Result<String> {
        let now = state(self.dir); // before reading: what comes later makes another state
        match &self.page {
            Some((state, page)) if *state == now => Ok(page.clone()),
            _ => {
                let mut report = self.gatherer.gather(self.dir, self.data, true)?;
                report.state = Some(now.clone());
                let page = render(&report)?;
                self.page = Some((now, page.clone()));
                Ok(page)
            }
        }
    }
}

fn is_for_us(request: &Request) -> bool {
    let host = request.headers().iter().find(|header| header.field.equiv("Host"));
    let name = host.and_then(|host| host.value.as_str().split(':').next());
    matches!(name, Some("127.0.0.1" | "localhost"))
}

fn typed(body: String, kind: &str) -> Answer {
    let header =
        |name: &str, value: &str| Header::from_bytes(name, value).expect("letters make a header");
    Response::from_string(body)
        .with_header(header("Content-Type", kind))
        .with_header(header("Cache-Control", "no-store"))
}

/// What changes when a result in `dir` does: names, sizes and times of its figures, predictions and
/// epochs, in one number.
fn state(dir: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut paths: Vec<_> =
            fs::read_dir(&folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
        paths.sort();
        for path in paths {
            let Ok(meta) = path.metadata() else { continue };
            let is_result = path
                .extension()
                .is_some_and(|end| ["json", "jsonl", "csv"].iter().any(|result| end == *result));
            if meta.is_dir() {
                folders.push(path);
            } else if is_result {
                (path, meta.len(), meta.modified().ok()).hash(&mut hasher);
            }
        }
    }
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_changes_with_results_and_with_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut seen = vec![state(dir.path())];
        let cell = dir.path().join("cells/toy/cumdf/seed-1");
        fs::create_dir_all(&cell).unwrap();
        fs::write(cell.join("log.txt"), "words").unwrap();
        assert_eq!(seen[0], state(dir.path()));
        for (file, text) in
            [("metrics.jsonl", "{}\n"), ("metrics.jsonl", "{}\n{}\n"), ("l.csv", "")]
        {
            fs::write(cell.join(file), text).unwrap();
            let now = state(dir.path());
            assert!(!seen.contains(&now), "{file}");
            seen.push(now);
        }
    }
}
