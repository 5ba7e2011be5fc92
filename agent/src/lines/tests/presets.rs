//! Stack traces as programs write them.

use super::*;

const WIDE: CutLimits = CutLimits { batch_bytes_max: 40_000, batch_records_max: 50, record_bytes_max: 10_000 };

/// Each text is one record: they are cut as they follow each other.
fn assert_records(preset: Preset, records: &[&str]) {
    let config = FramingConfig { multiline: Some(Multiline::Preset(preset)), ..FramingConfig::default() };
    let framing = Framing::new(&config).unwrap();
    let content: String = records.iter().map(|record| format!("{record}\n")).collect();
    let (arrived, _) = run_by(&framing, &WIDE, content.as_bytes(), &[(content.len(), Flush::End)]);
    let bodies: Vec<_> = arrived.iter().map(|(_, body)| std::str::from_utf8(body).unwrap()).collect();
    assert_eq!(bodies, records);
}

#[test]
fn java() {
    assert_records(
        Preset::Java,
        &[
            "2024-05-01 12:00:00.123 INFO  [main] c.e.Main - started",
            "2024-05-01 12:00:01.001 ERROR [http-1] c.e.Api - request failed\n\
             java.lang.IllegalStateException: cannot load user 7\n\
             \tat com.example.Users.load(Users.java:42)\n\
             \tat com.example.Api.lambda$get$0(Api.java:17)\n\
             \tat java.base/java.lang.Thread.run(Thread.java:840)\n\
             \tSuppressed: java.io.IOException: close failed\n\
             \t\tat com.example.Pool.close(Pool.java:9)\n\
             \t\t... 3 more\n\
             Caused by: org.postgresql.util.PSQLException: connection refused\n\
             \tat org.postgresql.Driver.connect(Driver.java:1)\n\
             \t... 21 common frames omitted",
            "2024-05-01 12:00:01.002 WARN  [main] c.e.Main - next",
            "Exception in thread \"main\" java.lang.RuntimeException: java.lang.OutOfMemoryError\n\
             \tat Main.main(Main.java:3)\n\
             Caused by: java.lang.OutOfMemoryError: Java heap space\n\
             \t... 1 more",
            "java.util.concurrent.TimeoutException: first of two that were printed\n\tat a.B.c(B.java:1)",
            "java.util.concurrent.TimeoutException: second\n\tat a.B.c(B.java:1)",
            "",
            "2024-05-01 12:00:02.000 INFO  [main] c.e.Main - done",
        ],
    );
}

#[test]
fn python() {
    assert_records(
        Preset::Python,
        &[
            "INFO:root:started",
            "ERROR:root:request failed\n\
             Traceback (most recent call last):\n\
             \x20 File \"/app/main.py\", line 10, in load\n\
             \x20   return users[name]\n\
             \x20          ~~~~~^^^^^^\n\
             KeyError: 'ada'\n\
             \n\
             During handling of the above exception, another exception occurred:\n\
             \n\
             Traceback (most recent call last):\n\
             \x20 File \"/app/main.py\", line 20, in <module>\n\
             \x20   load()\n\
             requests.exceptions.ConnectionError: refused",
            "Traceback (most recent call last):\n\
             \x20 File \"x.py\", line 1, in <module>\n\
             \x20   time.sleep(9)\n\
             KeyboardInterrupt",
            "Traceback (most recent call last):\n  File \"x.py\", line 1, in <module>\nValueError\n\n\
             The above exception was the direct cause of the following exception:\n\n\
             Traceback (most recent call last):\n  File \"x.py\", line 3, in <module>\nRuntimeError: b",
            "2024-05-01 12:00:00,123 - app - INFO - done",
        ],
    );
}

#[test]
fn go() {
    assert_records(
        Preset::Go,
        &[
            "2024/05/01 12:00:00 listening on :8080",
            "panic: runtime error: index out of range [5] with length 3 [recovered]\n\
             \tpanic: again\n\
             [signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x48e0a6]\n\
             \n\
             goroutine 1 [running]:\n\
             main.(*Server).handle(0xc000010000, {0x4b8f40, 0x5})\n\
             \t/app/server.go:42 +0x1d\n\
             main.main.func1()\n\
             \t/app/main.go:8 +0x1d\n\
             created by main.main in goroutine 1\n\
             \t/app/main.go:7 +0x5c\n\
             \n\
             goroutine 18 [select, 3 minutes]:\n\
             net/http.(*persistConn).readLoop(0xc0001)\n\
             \t/usr/local/go/src/net/http/transport.go:2205 +0x9b\n\
             exit status 2",
            "2024/05/01 12:00:01 next",
            "2024/05/01 12:00:02 http: panic serving 127.0.0.1:4000: boom\n\
             goroutine 34 [running]:\n\
             net/http.(*conn).serve.func1()\n\
             \t/usr/local/go/src/net/http/server.go:1868 +0xb9\n\
             panic({0x6b8f40?, 0x7c5b10?})\n\
             \t/usr/local/go/src/runtime/panic.go:920 +0x270",
            "2024/05/01 12:00:03 main.go:1: done (really)",
            "fatal error: all goroutines are asleep - deadlock!\n\ngoroutine 1 [chan receive]:\nmain.main()\n\t/x.go:4 +0x2",
        ],
    );
}

#[test]
fn rust() {
    assert_records(
        Preset::Rust,
        &[
            "2024-05-01T12:00:00Z  INFO app: started",
            "thread 'main' panicked at src/main.rs:2:5:\n\
             index out of bounds: the len is 3 but the index is 99\n\
             stack backtrace:\n\
             \x20  0: rust_begin_unwind\n\
             \x20            at /rustc/07dca489ac2d933c78d3c5158e3f43beefeb02ce/library/std/src/panicking.rs:645:5\n\
             \x20  1: core::panicking::panic_fmt\n\
             note: Some details are omitted, run with `RUST_BACKTRACE=full` for a verbose backtrace.",
            "2024-05-01T12:00:01Z  INFO app: next",
            "thread 'tokio-runtime-worker' (4711) panicked at src/lib.rs:9:13:\n\
             assertion `left == right` failed: sums differ\n  left: 1\n right: 2\n\
             note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace",
            "thread 'main' panicked at 'old style', src/main.rs:2:5\n\
             note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace",
            "Error: cannot start\n\nCaused by:\n    0: cannot read config\n    1: No such file or directory (os error 2)",
            "2024-05-01T12:00:02Z  INFO app: done",
        ],
    );
}

#[test]
fn dotnet() {
    assert_records(
        Preset::Dotnet,
        &[
            "2024-05-01 12:00:00.000 +00:00 [INF] started",
            "2024-05-01 12:00:01.000 +00:00 [ERR] request failed\n\
             System.InvalidOperationException: cannot load\n\
             \x20---> System.ArgumentNullException: Value cannot be null. (Parameter 'name')\n\
             \x20  at App.Users.Load(String name) in C:\\app\\Users.cs:line 42\n\
             \x20  --- End of inner exception stack trace ---\n\
             \x20  at App.Api.Get() in C:\\app\\Api.cs:line 17\n\
             --- End of stack trace from previous location ---\n\
             \x20  at App.Program.Main()",
            "Unhandled exception. System.NullReferenceException: Object reference not set to an instance of an object.\n\
             \x20  at Program.<Main>$(String[] args) in /app/Program.cs:line 3",
            "info: Microsoft.Hosting.Lifetime[14]\n      Now listening on: http://localhost:5000",
            "fail: Microsoft.AspNetCore.Server.Kestrel[13]\n      Connection id \"0\"\n      System.Exception: x\n         at A.B()",
            "2024-05-01 12:00:02.000 +00:00 [INF] done",
        ],
    );
}

#[test]
fn json() {
    assert_records(
        Preset::Json,
        &[
            "{\"one\": \"line\"}",
            "{\n  \"level\": \"error\",\n  \"tags\": [\n    \"a\"\n  ]\n}",
            "{\n\t\"two\": {}\n}",
            "plain text between",
            "[\n  1,\n  2\n]",
            "{\"one\": \"line\"}",
        ],
    );
}
