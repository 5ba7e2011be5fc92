//! The agent's process: started, stopped, killed, asked, and never left behind.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(5);

/// For what the process promises within a second or two, several times over.
const PROMPT: Duration = Duration::from_secs(30);

/// Waits until something holds; returns whether it did.
pub(crate) fn poll(within: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        if holds() {
            return true;
        }
        if begun.elapsed() > within {
            return false;
        }
        std::thread::sleep(LOOK);
    }
}

/// An agent. Dropped, it is killed.
pub(crate) struct Process {
    child: Child,
    stderr: PathBuf,
}

impl Process {
    /// Starts it; `wrapper` are the words of a command that runs the rest of its arguments.
    pub(crate) fn start(wrapper: &[OsString], config: &Path, stderr: PathBuf) -> Self {
        let words = [wrapper, &[env!("CARGO_BIN_EXE_logmesh-agent").into()]].concat();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("--config").arg(config);
        // What is set for the tests themselves would be an unknown setting of the process; the filter of its log is
        // passed on, for who looks into a scenario.
        let own = |name: &str| name.starts_with("LOGMESH_") && name != "LOGMESH_LOG";
        for (name, _) in std::env::vars_os().filter(|(name, _)| own(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        let said = File::create(&stderr).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).spawn().unwrap();
        Self { child, stderr }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// All it has said so far.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap()).into_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Stops it in the middle of whatever it does.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
        let stat = format!("/proc/{}/stat", self.child.id());
        let stopped = || fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T "));
        assert!(poll(PROMPT, stopped), "it does not stop");
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGKILL; it must have been alive until then.
    pub(crate) fn kill(mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "it had ended by itself:\n{}", self.said());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and its exit status.
    pub(crate) fn terminate(self) -> (Option<i32>, String) {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits for its end, and returns its exit status.
    pub(crate) fn wait(mut self) -> (Option<i32>, String) {
        let mut status = None;
        let ended = poll(PROMPT, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert!(ended, "it does not end:\n{}", self.said());
        (status.and_then(|status| status.code()), self.said())
    }

    /// Its admin address, once it listens there.
    pub(crate) fn admin(&self) -> SocketAddr {
        let mut address = None;
        let told = poll(PROMPT, || {
            let said = self.said();
            let line = said.lines().find(|line| line.contains("admin address"));
            address = line.and_then(|line| line.split("address=").nth(1)?.split_whitespace().next()?.parse().ok());
            address.is_some()
        });
        assert!(told, "it does not tell its admin address:\n{}", self.said());
        address.unwrap()
    }

    /// What the admin address answers to a path.
    pub(crate) fn ask(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.admin()).unwrap();
        stream.set_read_timeout(Some(PROMPT)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
