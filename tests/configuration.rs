//! Section 9: what is set, by whom, and what a person is told of it.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::site::{Finished, Site, TOKEN};

/// `wisr config` in `folder`, in an environment of these variables only.
fn config(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Finished {
    run(folder, &[&["config", "."], arguments].concat(), variables)
}

/// A command in `folder`, in an environment of these variables only.
fn run(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wisr"));
    command.env_clear().args(arguments);
    command.envs(variables.iter().copied()).current_dir(folder);
    let ended = command.output().unwrap();
    Finished {
        code: ended.status.code(),
        stdout: String::from_utf8(ended.stdout).unwrap(),
        stderr: String::from_utf8(ended.stderr).unwrap(),
    }
}

fn site(config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("wisr.toml"), config).unwrap();
    folder
}

/// Each value has its origin: the flag wins over the environment, that over the file, that over
/// the default. No secret is shown.
#[test]
fn each_value_says_where_it_comes_from() {
    let site = site(
        "[server]\nlisten = \"127.0.0.1:1\"\nthreads = 3\n\n[store]\nmemory = \"64MiB\"\n\
         [settings]\nkey = \"geheim in the file\"\n[routes.\"/posts/[id]\"]\ncpu = \"2s\"\n",
    );
    let variables = [
        ("WISR_SERVER_LISTEN", "127.0.0.1:2"),
        ("WISR_STORE_MEMORY", "128MiB"),
        ("WISR_TOKEN", "geheim in the environment"),
        ("WISR_STROE_DISK", "1"),
    ];
    let told = config(
        site.path(),
        &["--json", "--listen", "127.0.0.1:3"],
        &variables,
    );
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    assert!(!told.stdout.contains("geheim"), "{}", told.stdout);
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    let settings = told["settings"].as_array().unwrap();
    let one = |key: &str| {
        let found = settings.iter().find(|setting| setting["key"] == key);
        let found = found.unwrap_or_else(|| panic!("{key} in {settings:#?}"));
        (found["value"].clone(), found["origin"].clone())
    };
    let file = |line: u64| json!({"from": "file", "line": line});
    let environment = |variable: &str| json!({"from": "environment", "variable": variable});
    for (key, value, origin) in [
        (
            "server.listen",
            "\"127.0.0.1:3\"",
            json!({"from": "flag", "flag": "--listen"}),
        ),
        (
            "server.admin",
            "\"127.0.0.1:3001\"",
            json!({"from": "default"}),
        ),
        ("server.threads", "3", file(3)),
        (
            "store.memory",
            "\"128MiB\"",
            environment("WISR_STORE_MEMORY"),
        ),
        ("revalidate.token", "(hidden)", environment("WISR_TOKEN")),
        ("settings.key", "(hidden)", file(8)),
        ("routes.\"/posts/[id]\".cpu", "\"2s\"", file(10)),
    ] {
        assert_eq!(one(key), (json!(value), origin), "{key}");
    }
    let warning = told["warnings"][0].as_str().unwrap();
    assert!(
        warning.contains("did you mean WISR_STORE_DISK?"),
        "{warning}"
    );
    let set = config(site.path(), &["--set"], &variables).stdout;
    assert_eq!(set.lines().count(), 7, "{set}");
    assert!(
        set.contains("wisr.toml:3") && !set.contains("default"),
        "{set}"
    );
}

/// Whatever opens something is hidden, whoever says it: tokens, secrets, the passwords of URLs.
#[test]
fn no_secret_is_shown() {
    let site = site(
        "[draft]\ntoken = \"geheim, geheim, geheim\"\n[webhooks.cms]\nsecret = \"geheim, sehr geheim\"\n\
         paths = [\"/a\"]\n[store]\nurl = [\"redis://anna:geheim@a:1\", \"rediss://:ge%2Fheim@b:2\"]\n\
         [telemetry]\notlp = \"http://anna:geheim@c:3\"\n",
    );
    for form in [["--set"].as_slice(), &["--set", "--json"]] {
        let told = config(site.path(), form, &[]);
        assert_eq!(told.code, Some(0), "{}", told.stderr);
        let shown = told.stdout + &told.stderr;
        assert!(
            !shown.contains("geheim") && !shown.contains("heim@"),
            "{shown}"
        );
        for part in [
            "draft.token",
            "webhooks.cms.secret",
            "redis://anna:(hidden)@a:1",
            "rediss://:(hidden)@b:2",
            "http://anna:(hidden)@c:3",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }
    let cms = ("WISR_WEBHOOK_CMS_SECRET", "geheim, geheim, too");
    let told = config(site.path(), &["--set"], &[cms]).stdout;
    assert!(
        told.contains("WISR_WEBHOOK_CMS_SECRET") && !told.contains("geheim"),
        "{told}"
    );
    let url = ("WISR_STORE_URL", "redis://anna:geheim@d:4");
    let told = config(site.path(), &["--set"], &[url]).stdout;
    assert!(told.contains("redis://anna:(hidden)@d:4"), "{told}");
    assert!(!told.contains("geheim"), "{told}");
    // Nor where it is why the rest cannot be read.
    for (name, value) in [
        ("WISR_STORE_URL", "rediss://:ge/he@im@b:2"),
        ("WISR_TELEMETRY_OTLP", "http://anna:geheim@b:2 3"),
    ] {
        let told = config(Path::new("/"), &[], &[(name, value)]);
        assert_eq!(told.code, Some(1), "{}", told.stdout);
        assert!(
            told.stderr.starts_with(&format!("error: {name}")),
            "{}",
            told.stderr
        );
        assert!(told.stderr.contains("…@b:2"), "{}", told.stderr);
        assert!(!told.stderr.contains("geheim") && !told.stderr.contains("im@"));
    }
}

/// What a variable says is what a server does; what it cannot mean names it.
#[tokio::test]
async fn a_server_does_what_its_environment_says() {
    let site = Site::new()
        .pages(&["index", "posts/[id]"])
        .env("WISR_ADMIN_TOKEN", "operator-of-the-tests")
        .env("WISR_ROUTES", "{ \"/posts/[id]\" = { revalidate = 77 } }")
        .env("WISR_DEFAULTS_REVALIDATE", "55")
        .start_unready()
        .await;
    assert_eq!(site.admin("/api/routes").await.status, 401);
    let lifetime = async |path: &str| {
        let page = site.until(path, |page| page.status == 200).await;
        page.directive("s-maxage").map(str::to_owned)
    };
    assert_eq!(lifetime("/").await.as_deref(), Some("55"));
    assert_eq!(lifetime("/posts/1").await.as_deref(), Some("77"));
    // A change of the file does not undo what the environment says.
    site.configure("[server]\ndrain = \"5s\"\n[defaults]\nrevalidate = 33\n[routes.\"/posts/[id]\"]\ncpu = \"2s\"");
    site.signal(rustix::process::Signal::HUP);
    site.until_log("was read again").await;
    assert_eq!(lifetime("/").await.as_deref(), Some("55"));
    assert_eq!(lifetime("/posts/2").await.as_deref(), Some("77"));
}

/// A value that cannot be used is refused by the name of its variable, and a file's by its line.
#[test]
fn mistakes_name_their_place() {
    let fine = site("");
    for (name, value, part) in [
        ("WISR_STORE_MEMORY", "lots", "128MiB"),
        ("WISR_COMPILE_CPU", "10ms", "at least"),
        ("WISR_TOKEN", "abc", "at least 16"),
        ("WISR_TOKEN_FILE", "/nowhere", "cannot read /nowhere"),
        ("WISR_TELEMETRY_SAMPLE", "2", "from 0 to 1"),
        ("WISR_SERVER_ADMIN", "0.0.0.0:1", "admin-token"),
    ] {
        let told = config(fine.path(), &[], &[(name, value)]);
        assert_eq!(told.code, Some(1), "{name}");
        assert!(
            told.stderr.starts_with(&format!("error: {name}")),
            "{}",
            told.stderr
        );
        assert!(told.stderr.contains(part), "{name}: {}", told.stderr);
    }
    for (text, parts) in [
        ("[store]\nmemroy = 1", ["line 2", "did you mean `memory`?"]),
        (
            "[routes.\"/\"]\nfecthes = 1",
            ["line 2", "did you mean `fetches`?"],
        ),
        (
            "[log]\nformat = \"jsn\"",
            ["line 2", "did you mean `json`?"],
        ),
        (
            "[telemetry]\notpl = \"x\"",
            ["line 2", "did you mean `otlp`?"],
        ),
    ] {
        let told = config(site(text).path(), &[], &[("WISR_STORE_DISK", "1GiB")]);
        assert_eq!(told.code, Some(1), "{text}");
        assert!(told.stderr.contains("wisr.toml"), "{}", told.stderr);
        for part in parts {
            assert!(told.stderr.contains(part), "{part}: {}", told.stderr);
        }
    }
}

/// The README's tables are what the program says of its keys.
#[test]
fn the_readme_has_every_key() {
    let reference = config(Path::new("/"), &["--reference"], &[]).stdout;
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let missing: Vec<&str> = reference
        .lines()
        .filter(|line| !readme.contains(line))
        .collect();
    assert!(
        missing.is_empty(),
        "`wisr config --reference` prints what the README lacks:\n{}",
        missing.join("\n")
    );
    // And it has no others.
    let (_, rest) = readme.split_once("\n## Configuration\n").unwrap();
    let (section, _) = rest.split_once("\n## ").unwrap();
    let of_keys = section.split("| key | default | meaning |").skip(1);
    let is_row = |line: &&str| line.starts_with('|');
    let rows = of_keys.flat_map(|table| table.lines().skip(1).take_while(is_row));
    let rows: Vec<&str> = rows.filter(|line| line.starts_with("| ")).collect();
    assert!(rows.len() > 50, "{rows:#?}");
    let unknown: Vec<_> = rows
        .into_iter()
        .filter(|row| !reference.contains(row))
        .collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
}

/// A folder that is not there has no configuration to show.
#[test]
fn a_folder_that_is_missing_is_named() {
    let here = tempfile::tempdir().unwrap();
    let told = run(here.path(), &["config", "nowhere"], &[]);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.stderr.contains("no folder `nowhere`"), "{told:?}");
}

/// Who asks a server from its own environment need not say where it listens.
// The origin answers while a command is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn commands_find_the_server_of_their_environment() {
    let site = Site::new().pages(&["posts/[id]"]).start().await;
    site.until_ready().await;
    let variables = [
        ("WISR_SERVER_LISTEN", site.site().to_string()),
        ("WISR_SERVER_ADMIN", site.admin_door().to_string()),
        ("WISR_TOKEN", TOKEN.to_owned()),
    ];
    let variables = variables.each_ref().map(|(name, value)| (*name, &**value));
    let ask = |arguments: &[&str]| run(Path::new("/"), arguments, &variables);
    for (arguments, answer) in [
        (&["health"][..], "ready"),
        (&["releases"], "release"),
        (&["revalidate", "--path", "/posts/1"], "/posts/1"),
    ] {
        let told = ask(arguments);
        assert_eq!(told.code, Some(0), "{arguments:?}: {told:?}");
        assert!(told.stdout.contains(answer), "{arguments:?}: {told:?}");
    }
    let elsewhere = ask(&["health", "--admin", "127.0.0.1:1"]);
    assert_eq!(elsewhere.code, Some(1), "the flag wins: {elsewhere:?}");
    let lost = run(
        Path::new("/"),
        &["rollback"],
        &[("WISR_SERVER_ADMIN", "here")],
    );
    assert_eq!(lost.code, Some(2), "{lost:?}");
    assert!(lost.stderr.contains("WISR_SERVER_ADMIN"), "{lost:?}");
}
