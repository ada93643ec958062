//! A software authenticator on the package `fido2` of Python, and the browser beside it.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use drystone_tests::{binary, readme};
use serde_json::{Value, json};

/// The origin that the tests' servers expect.
pub const ORIGIN: &str = "https://app.example.com";

/// A device with passkeys.
pub struct Authenticator {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Authenticator {
    /// A new device, without passkeys.
    pub fn new() -> Self {
        let script = binary::repository().join("tests/clients/authenticator.py");
        let mut command = Command::new(readme::tool("python"));
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("python runs");
        let input = process.stdin.take().expect("it is a pipe");
        let output = BufReader::new(process.stdout.take().expect("it is a pipe"));
        Self { process, input, output }
    }

    /// Creates a passkey; `fault` changes what a right device and browser would send.
    #[track_caller]
    pub fn create(&mut self, options: &Value, fault: &Value) -> Value {
        self.run("create", options, fault)
    }

    /// Uses a passkey.
    #[track_caller]
    pub fn get(&mut self, options: &Value, fault: &Value) -> Value {
        self.run("get", options, fault)
    }

    #[track_caller]
    fn run(&mut self, command: &str, options: &Value, fault: &Value) -> Value {
        let answer = self.answer(command, options, fault);
        assert!(answer["error"].is_null(), "{command} {fault}: {answer}");
        // As `JSON.stringify(credential)` has it.
        Value::String(answer["credential"].to_string())
    }

    /// What the device answers, which may be an error.
    pub fn answer(&mut self, command: &str, options: &Value, fault: &Value) -> Value {
        let mut request = json!({"do": command, "origin": ORIGIN, "options": options});
        let members = request.as_object_mut().expect("it is an object");
        members.extend(fault.as_object().cloned().unwrap_or_default());
        writeln!(self.input, "{request}").expect("the authenticator reads");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the authenticator answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}

impl Drop for Authenticator {
    fn drop(&mut self) {
        let _it_may_have_exited = self.process.kill();
        let _ = self.process.wait();
    }
}
