//! The files of `public/`: which of them are served, in which form, and for how long.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use crate::client::Response;
use crate::site::{Running, Site, wait_for};

const REVALIDATED: &str = "public, max-age=0, must-revalidate";

/// Sent in pieces.
fn large() -> Vec<u8> {
    (0..300_000_u32).flat_map(u32::to_le_bytes).collect()
}

const STYLE: &[u8] = b"body { color: teal; background: white; border-color: teal }";

/// The bytes in a coding.
fn coded(coding: &str, bytes: &[u8]) -> Vec<u8> {
    match coding {
        "br" => {
            let mut coder = brotli::CompressorWriter::new(Vec::new(), 4096, 9, 22);
            coder.write_all(bytes).unwrap();
            coder.into_inner()
        }
        "zstd" => zstd::bulk::compress(bytes, 3).unwrap(),
        "gzip" => {
            let mut coder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
            coder.write_all(bytes).unwrap();
            coder.finish().unwrap()
        }
        _ => bytes.to_vec(),
    }
}

async fn site() -> Running {
    Site::new()
        .pages(&["index"])
        .file("public/app.css", STYLE)
        .file("public/app.css.br", &coded("br", STYLE))
        .file("public/app.css.zst", &coded("zstd", STYLE))
        .file("public/app.css.gz", &coded("gzip", STYLE))
        .file("public/app.3f9a1c2e.css", b"hashed")
        .file("public/digits.txt", b"0123456789")
        .file("public/empty.txt", b"")
        .file("public/large.bin", &large())
        .file("public/.env", b"SECRET")
        .file("public/.git/config", b"SECRET")
        .file("public/.well-known/security.txt", b"Contact: a")
        .start()
        .await
}

async fn accepting(site: &Running, path: &str, accepted: &str) -> Response {
    site.get_with(path, &[("accept-encoding", accepted)]).await
}

/// A reader gets the coding that it likes best of those that lie beside the file, and each has a
/// validator of its own. At its own address a coded file is a file like any other.
#[tokio::test]
async fn coded_forms_are_chosen_by_what_readers_accept() {
    let site = site().await;
    let mut tags = std::collections::BTreeSet::new();
    for (accepted, coding) in [
        ("gzip, deflate, br, zstd", "br"),
        ("gzip, zstd", "zstd"),
        ("br;q=0.5, gzip;q=0.8", "gzip"),
        ("br;q=0, *", "zstd"),
        ("deflate", ""),
        ("identity, br;q=0.5", ""),
    ] {
        let body = coded(coding, STYLE);
        let answer = accepting(&site, "/app.css", accepted).await;
        let told = (answer.status, answer.header("content-encoding"));
        assert_eq!(told, (200, coding), "{accepted}");
        assert_eq!(answer.body, body, "{accepted}");
        assert_eq!(answer.header("content-type"), "text/css; charset=utf-8");
        assert_eq!(answer.header("vary"), "accept-encoding");
        let length = answer.header("content-length").parse::<usize>().unwrap();
        assert_eq!(length, body.len());
        tags.insert(answer.header("etag").to_owned());
    }
    assert_eq!(tags.len(), 4, "{tags:?}");
    let own = accepting(&site, "/app.css.gz", "gzip, br").await;
    let told = (own.body.to_vec(), own.header("content-type"));
    assert_eq!(told, (coded("gzip", STYLE), "application/gzip"));
    assert_eq!(
        (own.header("content-encoding"), own.header("vary")),
        ("", "")
    );
}

/// The version that is put back, older than the one that the coded forms are of.
const OLDER: &[u8] = b"body { color: black } /* of the same length as the other */";

/// What browsers send.
const BROWSER: &str = "gzip, deflate, br, zstd";

/// Who puts a file back with the time that it had, changes it in place, or leaves a form of something
/// else beside it gets what the file holds: a coded form is proved to be of it, not believed by its
/// time; and who has the newer one is not told that it is the same.
#[tokio::test]
async fn a_coded_form_of_another_version_is_not_sent() {
    assert_eq!(OLDER.len(), STYLE.len());
    let site = site().await;
    let (public, aside) = (site.folder().join("public"), site.folder().join("aside"));
    fs::create_dir(&aside).unwrap();
    let file = public.join("app.css");
    let old = aside.join("app.css");
    fs::write(&old, OLDER).unwrap();
    shell(&aside, "touch -d 2020-01-01 app.css");
    let in_place = |bytes: &[u8]| {
        let modified = fs::metadata(&file).unwrap().modified().unwrap();
        let mut there = fs::File::options().write(true).open(&file).unwrap();
        there.write_all(bytes).unwrap();
        there.set_modified(modified).unwrap();
    };
    let restore: [(&str, &dyn Fn()); 5] = [
        ("cp -p", &|| {
            shell(&aside, "cp -p app.css ../public/app.css")
        }),
        ("tar", &|| {
            shell(&aside, "tar c app.css | tar x -C ../public")
        }),
        // As `rsync -a` does it.
        ("rename", &|| {
            shell(
                &aside,
                "cp -p app.css ../public/.app.css.x; mv ../public/.app.css.x ../public/app.css",
            );
        }),
        ("in place, with the time that the newer one had", &|| {
            in_place(OLDER)
        }),
        ("forms that are newer", &|| {
            shell(
                &aside,
                "cp -p app.css ../public/app.css; touch ../public/app.css.*",
            );
        }),
    ];
    for (how, restore) in restore {
        fs::write(&file, STYLE).unwrap();
        let mut had = Vec::new();
        for coding in ["br", "gzip", "zstd"] {
            let newer = accepting(&site, "/app.css", coding).await;
            assert_eq!(newer.header("content-encoding"), coding, "{how}");
            had.push(newer.header("etag").to_owned());
        }
        had.push(
            accepting(&site, "/app.css", "identity")
                .await
                .header("etag")
                .to_owned(),
        );
        restore();
        for accepted in [BROWSER, "gzip", "zstd", "identity"] {
            let answer = accepting(&site, "/app.css", accepted).await;
            let told = (answer.header("content-encoding"), &answer.body[..]);
            assert_eq!(told, ("", OLDER), "{how} {accepted}");
            let had = had.join(", ");
            let known = [("accept-encoding", accepted), ("if-none-match", &*had)];
            let answer = site.get_with("/app.css", &known).await;
            assert_eq!(
                (answer.status, &answer.body[..]),
                (200, OLDER),
                "{how} {accepted}"
            );
        }
    }
}

/// What is no form of the file beside it is not sent, whatever it is; what becomes one is.
#[tokio::test]
async fn only_what_decodes_to_the_file_is_a_form_of_it() {
    let site = site().await;
    let public = site.folder().join("public");
    fs::write(public.join("app.css"), OLDER).unwrap();
    fs::write(public.join("app.css.br"), coded("br", OLDER)).unwrap();
    let answer = accepting(&site, "/app.css", BROWSER).await;
    assert_eq!(answer.header("content-encoding"), "br");
    fs::write(public.join("app.css.br"), b"no brotli").unwrap();
    let answer = accepting(&site, "/app.css", BROWSER).await;
    assert_eq!(answer.header("content-encoding"), "");
    let mut longer = OLDER.to_vec();
    longer.resize(1 << 20, b' ');
    for bytes in [&longer, &OLDER[..20], b""] {
        fs::write(public.join("app.css.br"), coded("br", bytes)).unwrap();
        let answer = accepting(&site, "/app.css", "br").await;
        assert_eq!(answer.header("content-encoding"), "");
    }
}

/// By the date alone, too, no version is taken for another: it is that of the change, not the one
/// that was put back, and only the very date says that nothing has changed.
#[tokio::test]
async fn no_date_calls_two_versions_one() {
    let site = site().await;
    let path = "/digits.txt";
    let date = dated(&site, path).await;
    let answer = site.get_with(path, &[("if-modified-since", &date)]).await;
    assert_eq!(answer.status, 304);
    let aside = site.folder().join("aside");
    fs::write(&aside, "9876543210").unwrap();
    shell(
        site.folder(),
        "touch -d 2020-01-01 aside; cp -p aside public/digits.txt",
    );
    for since in [
        &*date,
        "Thu, 01 Jan 2026 00:00:00 GMT",
        "Fri, 01 Jan 2100 00:00:00 GMT",
    ] {
        let answer = site.get_with(path, &[("if-modified-since", since)]).await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "9876543210"),
            "{since}"
        );
        let part = [("range", "bytes=0-1"), ("if-range", since)];
        assert_eq!(site.get_with(path, &part).await.status, 200, "{since}");
    }
    let now = dated(&site, path).await;
    assert_ne!(now, date);
    assert_eq!(
        site.get_with(path, &[("if-modified-since", &now)])
            .await
            .status,
        304
    );
}

/// The date of a file, once there is one: in the second in which it changed it may change again.
async fn dated(site: &Running, path: &str) -> String {
    let dated = site.until(path, |answer| !answer.header("last-modified").is_empty());
    dated.await.header("last-modified").to_owned()
}

/// Runs a line of shell.
#[track_caller]
fn shell(folder: &Path, line: &str) {
    let done = Command::new("sh")
        .args(["-ec", line])
        .current_dir(folder)
        .status();
    assert!(done.unwrap().success(), "{line}");
}

/// What a large file is broken off by is a change of it, not the number of those who read it.
#[tokio::test]
async fn however_many_read_slowly_a_file_is_sent_whole() {
    let site = site().await;
    let large = large();
    let mut slow = Vec::new();
    for _ in 0..40 {
        let mut stream = tokio::net::TcpStream::connect(site.site()).await.unwrap();
        let ask = b"GET /large.bin HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, ask)
            .await
            .unwrap();
        slow.push(stream);
    }
    for stream in &mut slow {
        let mut answer = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(stream, &mut answer)
            .await
            .unwrap();
        assert!(
            answer.ends_with(&large[large.len() - 100..]),
            "{}",
            answer.len()
        );
    }
}

/// Who has a file is not sent it again, until it is another.
#[tokio::test]
async fn who_has_a_file_is_not_sent_it_again() {
    let site = site().await;
    let first = site.get("/digits.txt").await;
    assert_eq!(first.header("cache-control"), REVALIDATED);
    let (tag, date) = (first.header("etag"), &*dated(&site, "/digits.txt").await);
    for condition in [("if-none-match", tag), ("if-modified-since", date)] {
        let again = site.get_with("/digits.txt", &[condition]).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{condition:?}");
        assert_eq!(again.header("etag"), tag);
        assert_eq!(again.header("cache-control"), REVALIDATED);
    }
    let hashed = site.get("/app.3f9a1c2e.css").await;
    let forever = "public, max-age=31536000, immutable";
    assert_eq!(hashed.header("cache-control"), forever);

    // Of the same length, and with the times that it had before: only the kernel knows.
    let file = site.folder().join("public/digits.txt");
    let modified = fs::metadata(&file).unwrap().modified().unwrap();
    fs::write(&file, "9876543210").unwrap();
    let file = fs::File::options().write(true).open(&file).unwrap();
    file.set_modified(modified).unwrap();
    let changed = site
        .get_with("/digits.txt", &[("if-none-match", tag)])
        .await;
    assert_eq!(
        (changed.status, changed.text().as_str()),
        (200, "9876543210")
    );
    // Who goes on with the old one is not given a part of the new one.
    let part = [("if-match", tag), ("range", "bytes=5-")];
    let answer = site.get_with("/digits.txt", &part).await;
    assert_eq!(answer.status, 412);
}

/// A part of a file is sent to who asks for one, as long as it is the file that they have the rest
/// of.
#[tokio::test]
async fn parts_of_files_are_sent() {
    let site = site().await;
    let tag = site.get("/digits.txt").await.header("etag").to_owned();
    let weak = format!("W/{tag}");
    for (range, condition, status, content_range, body) in [
        ("bytes=2-4", None, 206, "bytes 2-4/10", "234"),
        ("bytes=7-", None, 206, "bytes 7-9/10", "789"),
        ("bytes=-2", None, 206, "bytes 8-9/10", "89"),
        ("bytes=8-99", None, 206, "bytes 8-9/10", "89"),
        ("bytes=10-", None, 416, "bytes */10", ""),
        ("bytes=0-1,3-4", None, 200, "", "0123456789"),
        ("lines=0-1", None, 200, "", "0123456789"),
        ("bytes=4-2", None, 416, "bytes */10", ""),
        ("bytes=0-0", Some(tag.as_str()), 206, "bytes 0-0/10", "0"),
        ("bytes=0-0", Some("\"other\""), 200, "", "0123456789"),
        ("bytes=0-0", Some(weak.as_str()), 200, "", "0123456789"),
    ] {
        let mut headers = vec![("range", range)];
        headers.extend(condition.map(|tag| ("if-range", tag)));
        let answer = site.get_with("/digits.txt", &headers).await;
        let told = (answer.status, answer.header("content-range"), answer.text());
        assert_eq!(
            told,
            (status, content_range, body.to_owned()),
            "{headers:?}"
        );
    }
    // Of a coded form, its own bytes; of nothing, no part.
    let asked = [("range", "bytes=3-5"), ("accept-encoding", "br")];
    let part = site.get_with("/app.css", &asked).await;
    assert_eq!((part.status, part.header("content-encoding")), (206, "br"));
    assert_eq!(part.body, coded("br", STYLE)[3..=5]);
    let empty = site.get("/empty.txt").await;
    assert_eq!((empty.status, empty.header("content-length")), (200, "0"));
    let none = site.get_with("/empty.txt", &[("range", "bytes=0-")]).await;
    assert_eq!(none.status, 416);

    let large = large();
    assert_eq!(site.get("/large.bin").await.body, large);
    let range = format!("bytes=1-{}", large.len() - 2);
    let part = site.get_with("/large.bin", &[("range", &range)]).await;
    assert_eq!(part.body, large[1..large.len() - 1]);
}

/// Files are read, and nothing else is done with them; HEAD says what GET would.
#[tokio::test]
async fn files_are_only_read() {
    let site = site().await;
    for method in ["POST", "DELETE", "OPTIONS"] {
        let answer = site.send(method, "/digits.txt", &[], "").await;
        let told = (answer.status, answer.header("allow"));
        assert_eq!(told, (405, "GET, HEAD"), "{method}");
    }
    for path in ["/digits.txt", "/large.bin"] {
        let get = site.get(path).await;
        let head = site.send("HEAD", path, &[("range", "bytes=0-1")], "").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        for name in [
            "content-length",
            "content-type",
            "etag",
            "accept-ranges",
            "cache-control",
        ] {
            assert_eq!(head.header(name), get.header(name), "{name}");
            assert_ne!(head.header(name), "", "{name}");
        }
    }
}

/// Nothing hidden is served, nothing outside the folder, and nothing that is not there any more.
#[tokio::test]
async fn what_is_not_for_everybody_is_not_served() {
    let site = site().await;
    for path in ["/.env", "/.git/config", "/%2eenv"] {
        assert_eq!(site.get(path).await.status, 404, "{path}");
    }
    let known = site.get("/.well-known/security.txt").await;
    assert_eq!(known.text(), "Contact: a");

    // A link that a file has become since the folder was looked at, too.
    let public = site.folder().join("public");
    fs::write(site.folder().join("secret.txt"), "SECRET").unwrap();
    let link = public.join(".link");
    std::os::unix::fs::symlink("../secret.txt", &link).unwrap();
    fs::rename(&link, public.join("digits.txt")).unwrap();
    assert_eq!(site.get("/digits.txt").await.status, 404);
    fs::remove_file(public.join("empty.txt")).unwrap();
    assert_eq!(site.get("/empty.txt").await.status, 404);
}

/// A file comes before a page of the same path, and that is told with both names.
#[tokio::test]
async fn a_file_that_takes_the_path_of_a_page_is_told_of() {
    let site = Site::new()
        .pages(&["index", "about", "[slug]"])
        .file("public/about", b"the file")
        .file("public/other", b"another")
        .start()
        .await;
    assert_eq!(site.get("/about").await.text(), "the file");
    let told = "`public/about` and `pages/about.wasm` have one path, `/about`";
    site.until_log(told).await;
    fs::write(site.folder().join("public/new"), "new").unwrap();
    wait_for("the new file", async || {
        match site.get("/new").await.text() {
            text if text == "new" => Ok(()),
            other => Err(other),
        }
    })
    .await;
    site.swap("new", crate::modules::puppet());
    site.until_log("`public/new` and `pages/new.wasm`").await;
    let log = site.log();
    assert_eq!(log.matches(told).count(), 1, "it is told once: {log}");
    assert!(
        !log.contains("public/other"),
        "it is what files are for: {log}"
    );
}
