//! [`Browser`]: headless Chromium, driven over WebDriver (W3C, level 2).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::Client;
use crate::site::wait_for;
use crate::tools::tool;

const INSTALL: &str = "apt install chromium chromium-driver";

/// What a name of an element is kept under (section 12.2).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Everything that Chromium would call home for is off.
const ARGUMENTS: [&str; 8] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// A browser with a profile of its own, until dropped.
pub(crate) struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    _profile: TempDir,
}

impl Browser {
    /// A new one with a window of this size in CSS pixels; none where there is no Chromium.
    pub(crate) async fn open(width: u32, height: u32) -> Option<Self> {
        let chromium = tool("chromium", INSTALL)?;
        let mut driver = Command::new(tool("chromedriver", INSTALL)?)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut told = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = told.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse().ok()
        });
        // What it says later is read, so that it never waits for that.
        std::thread::spawn(move || told.for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        let mut arguments = ARGUMENTS.map(str::to_owned).to_vec();
        arguments.push(format!("--window-size={width},{height}"));
        arguments.push(format!("--user-data-dir={}", profile.path().display()));
        let mut browser = Self {
            driver,
            address: ([127, 0, 0, 1], port.expect("chromedriver tells its port")).into(),
            session: String::new(),
            _profile: profile,
        };
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"binary": chromium, "args": arguments},
        }}});
        let begun = browser.call("POST", "/session", capabilities).await;
        let session = begun.unwrap()["sessionId"].as_str().unwrap().to_owned();
        browser.session = format!("/session/{session}");
        Some(browser)
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Result<Value, String> {
        let target = format!("{}{path}", self.session);
        let (json, body) = (("content-type", "application/json"), body.to_string());
        let body = if method == "GET" { "" } else { &body };
        let answer = Client::new(self.address)
            .send(method, &target, &[json], body)
            .await?;
        match answer.status {
            200 => Ok(answer.json()["value"].clone()),
            _ => Err(answer.json()["value"]["message"].to_string()),
        }
    }

    async fn get(&self, path: &str) -> Value {
        self.call("GET", path, Value::Null).await.unwrap()
    }

    pub(crate) async fn visit(&self, url: &str) {
        self.call("POST", "/url", json!({ "url": url }))
            .await
            .unwrap();
    }

    /// Where it is.
    pub(crate) async fn url(&self) -> String {
        self.get("/url").await.as_str().unwrap().to_owned()
    }

    /// Does something with the first element that an XPath or CSS expression selects, once there is
    /// one that is still there when it is done.
    async fn on(&self, selector: &str, method: &str, what: &str, body: &Value) -> Value {
        let using = match selector.starts_with("//") {
            true => "xpath",
            false => "css selector",
        };
        wait_for(&format!("{selector} in the page"), async || {
            let asked = json!({"using": using, "value": selector});
            let found = self.call("POST", "/element", asked).await?;
            let element = found[ELEMENT].as_str().unwrap();
            let path = format!("/element/{element}/{what}");
            self.call(method, &path, body.clone()).await
        })
        .await
    }

    /// Clicks on the first element that is selected.
    pub(crate) async fn click(&self, selector: &str) {
        self.on(selector, "POST", "click", &json!({})).await;
    }

    /// Clicks on the link or button with this name, on the page with this heading.
    pub(crate) async fn press(&self, heading: &str, name: &str) {
        let on_page = format!("//main[h1[.={heading:?}]]");
        let selector = format!("{on_page}//*[self::a or self::button][normalize-space()={name:?}]");
        self.click(&selector).await;
    }

    /// Types into the first element that is selected; keys are those of section 17.4.2.
    pub(crate) async fn type_into(&self, selector: &str, text: &str) {
        self.on(selector, "POST", "value", &json!({ "text": text }))
            .await;
    }

    /// Presses keys where the focus is.
    pub(crate) async fn keys(&self, keys: &str) {
        let strokes: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|how| json!({"type": how, "value": key})))
            .collect();
        let actions = json!({"actions": [{"type": "key", "id": "keys", "actions": strokes}]});
        self.call("POST", "/actions", actions).await.unwrap();
    }

    /// The text of the first element that is selected, as it is shown.
    pub(crate) async fn text(&self, selector: &str) -> String {
        let text = self.on(selector, "GET", "text", &Value::Null).await;
        text.as_str().unwrap().to_owned()
    }

    /// Waits until the first element that is selected shows these words.
    pub(crate) async fn until(&self, selector: &str, words: &str) {
        wait_for(&format!("{words:?} in {selector}"), async || {
            match self.text(selector).await {
                text if text.contains(words) => Ok(()),
                text => Err(text),
            }
        })
        .await;
    }

    /// What a function's body returns in the page.
    pub(crate) async fn run(&self, script: &str) -> Value {
        let asked = json!({"script": script, "args": []});
        self.call("POST", "/execute/sync", asked).await.unwrap()
    }

    /// What Chromium complained of: errors of scripts, violations of policies.
    pub(crate) async fn complaints(&self) -> Vec<Value> {
        let log = self
            .call("POST", "/se/log", json!({"type": "browser"}))
            .await;
        log.unwrap().as_array().unwrap().clone()
    }

    /// Makes the window this wide, and the page dark or light.
    pub(crate) async fn look(&self, width: u32, height: u32, scheme: &str) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        for (cmd, params) in [
            ("Emulation.setDeviceMetricsOverride", metrics),
            ("Emulation.setEmulatedMedia", features),
        ] {
            let asked = json!({"cmd": cmd, "params": params});
            self.call("POST", "/goog/cdp/execute", asked).await.unwrap();
        }
    }
}

impl Drop for Browser {
    /// Ends Chromium, which outlives its driver otherwise, and then the driver.
    fn drop(&mut self) {
        if let Ok(mut stream) = TcpStream::connect(self.address) {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
            let head = format!(
                "DELETE {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
                self.session, self.address
            );
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.read(&mut [0; 1]);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
