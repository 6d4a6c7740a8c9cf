//! Section 4, packages: a page in Python has what its site's `requirements.txt` lists, and nothing else that is
//! installed on the machine; and what was installed for it moves with the source tree.

use std::fs;
use std::path::{Path, PathBuf};

use crate::languages::{PYTHON, WAITS};
use crate::modules;
use crate::site::{Finished, Site};
use crate::tools::tool;

/// Packs `PACKAGE-1.0-py3-none-any.whl` of the files of a folder, so that no registry is needed.
const PACK: &str = r#"
import os, sys, zipfile
folder, package, wheel = sys.argv[1:]
with zipfile.ZipFile(wheel, "w") as into:
    for name in os.listdir(folder):
        into.write(os.path.join(folder, name), f"{package}/{name}")
    about = f"{package}-1.0.dist-info"
    into.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    into.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    into.writestr(f"{about}/RECORD", "")
"#;

/// A source tree with one page in Python, and a machine on which other things are installed.
struct Tree {
    folder: PathBuf,
    machine: tempfile::TempDir,
}

impl Tree {
    fn new(name: &str) -> Option<Self> {
        tool(PYTHON.0, PYTHON.1)?;
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("languages")
            .join(name);
        for place in ["hello", "vendor", "requirements.txt"] {
            let _ = fs::remove_dir_all(folder.join(place));
            let _ = fs::remove_file(folder.join(place));
        }
        let artifacts = modules::artifacts();
        for path in [&folder.join("hello"), &folder.join("vendor"), &artifacts] {
            fs::create_dir_all(path).unwrap();
        }
        fs::write(
            folder.join("wisr.toml"),
            format!("[server]\nartifacts = {artifacts:?}\n"),
        )
        .unwrap();
        let machine = tempfile::tempdir().unwrap();
        fs::write(
            machine.path().join("somebodys.py"),
            "TEXT = 'of the machine'\n",
        )
        .unwrap();
        Some(Self { folder, machine })
    }

    /// The page imports and shows these.
    fn page(&self, imports: &str, shown: &str) {
        let page = format!("{imports}\n\n\ndef render(props, ctx):\n    return {shown}\n");
        fs::write(self.folder.join("hello/page.py"), page).unwrap();
    }

    fn wheel(&self, package: &str, files: &[(&str, &str)]) {
        let folder = self.machine.path().join(package);
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
        let wheel = self
            .folder
            .join(format!("vendor/{package}-1.0-py3-none-any.whl"));
        let packed = std::process::Command::new("python3")
            .args(["-c", PACK])
            .arg(&folder)
            .arg(package)
            .arg(wheel)
            .status();
        assert!(packed.unwrap().success());
    }

    fn requires(&self, lines: &str) {
        fs::write(self.folder.join("requirements.txt"), lines).unwrap();
    }

    /// Builds where `PYTHONPATH`, pip's settings and an active environment of somebody's lead elsewhere.
    async fn build(&self, site: &Path) -> Finished {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_wisr"))
            .args(["build", ".", "-o"])
            .arg(site)
            .current_dir(&self.folder)
            .env("PYTHONPATH", self.machine.path())
            .env("VIRTUAL_ENV", self.machine.path())
            .env("PIP_TARGET", self.machine.path().join("elsewhere"))
            .env("WISR_COMPILE_WALL", "20min")
            .output()
            .await
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Finished {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    async fn fails(&self, told: &[&str]) {
        let site = tempfile::tempdir().unwrap();
        let built = self.build(site.path()).await;
        assert_eq!(built.code, Some(1), "{built:?}");
        for part in told {
            assert!(built.stderr.contains(part), "{part:?} in {}", built.stderr);
        }
    }

    async fn shows(&self, text: &str) {
        let site = tempfile::tempdir().unwrap();
        let built = self.build(site.path()).await;
        assert_eq!(built.code, Some(0), "{built:?}");
        let module = fs::read(site.path().join("pages/hello.wasm")).unwrap();
        let site = Site::new().module("hello", &module).start().await;
        assert_eq!(site.get_with("/hello", &WAITS).await.text(), text);
    }
}

/// What is installed for the person, the machine or a shell's environment is not there for a page, and it is told
/// where to list it.
async fn has_nothing_of_the_machine(tree: &Tree) {
    for name in ["somebodys", "pip", "componentize_py"] {
        tree.page(&format!("import {name}"), &format!("{name}.__name__"));
        let missing = format!("No module named '{name}'");
        let hint = format!("If `{name}` is a package, list it there");
        tree.fails(&[
            "\"hello/page.py\", line 1",
            &missing,
            &hint,
            "`requirements.txt` beside wisr.toml",
        ])
        .await;
    }
}

/// A wheel of the tree's own, changed; one of a registry, which does without its machine code; one that cannot.
async fn has_what_is_listed(tree: &Tree) {
    tree.requires("./vendor/harbour-1.0-py3-none-any.whl  # ours\njinja2==3.1.6\n");
    tree.wheel("harbour", &[("__init__.py", "TIDE = 'high'\n")]);
    let shown = "jinja2.Template('{{ tide }} & {{ x|e }}').render(tide=harbour.TIDE, x='<')";
    tree.page("import harbour\nimport jinja2", shown);
    tree.shows("high & &lt;").await;
    tree.wheel("harbour", &[("__init__.py", "TIDE = 'low'\n")]);
    tree.shows("low & &lt;").await;
    tree.requires("./vendor/wharf-1.0-py3-none-any.whl\n");
    tree.wheel(
        "wharf",
        &[
            ("__init__.py", "from ._core import crane\n"),
            ("_core.cpython-311-x86_64-linux-gnu.so", ""),
        ],
    );
    tree.page("import wharf", "wharf.crane");
    tree.fails(&[
        "The package `wharf` has code of this machine's processor (wharf/_core",
        "packages that are all Python",
    ])
    .await;
    tree.page("import harbour", "harbour.TIDE");
    tree.fails(&["No module named 'harbour'"]).await;
}

/// The tools and packages name no place: another folder builds with them, and needs no network.
async fn may_move(mut tree: Tree) {
    tree.requires("./vendor/harbour-1.0-py3-none-any.whl\n");
    tree.page("import harbour", "harbour.TIDE");
    tree.shows("low").await;
    let before = tree.folder.clone();
    tree.folder = before.with_extension("moved");
    let _ = fs::remove_dir_all(&tree.folder);
    fs::rename(&before, &tree.folder).unwrap();
    tree.page("import harbour", "harbour.TIDE + ' tide'");
    let site = tempfile::tempdir().unwrap();
    let built = tree.build(site.path()).await;
    // The next run begins with the tools where they are.
    fs::rename(&tree.folder, &before).unwrap();
    assert_eq!(built.code, Some(0), "{built:?}");
    assert!(!built.stderr.contains("installing"), "{}", built.stderr);
}

/// One after the other: the tools are installed once.
#[tokio::test]
async fn packages_come_from_the_list_and_move_with_it() {
    let Some(tree) = Tree::new("packed-python") else {
        return;
    };
    has_nothing_of_the_machine(&tree).await;
    has_what_is_listed(&tree).await;
    may_move(tree).await;
}
