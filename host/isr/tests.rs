//! The life of a page, on a paused clock, with a renderer that does as it is told.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::*;
use crate::page::{
    Content, Context, Cost, Digest, Document, Failure, FailureKind, Fallback, Generation, Lifetime,
    Outcome, Param, PathList, Pending, Policy, Props, Render, Revalidate,
};
use crate::store;

/// What the renderer does next.
enum Step {
    Page(Lifetime, &'static str),
    Tagged(&'static str),
    NotFound,
    Fail,
    Panic,
}

struct Fake {
    module: Digest,
    steps: Mutex<VecDeque<Step>>,
    calls: AtomicUsize,
    causes: Mutex<Vec<Cause>>,
    takes: Duration,
    /// Whether it can draw a shell, or panics.
    draws: bool,
}

impl Fake {
    fn new(steps: impl IntoIterator<Item = Step>) -> Arc<Self> {
        Self::slow(Duration::from_millis(100), steps)
    }

    fn slow(takes: Duration, steps: impl IntoIterator<Item = Step>) -> Arc<Self> {
        Arc::new(Self {
            module: Digest::of(b"module"),
            steps: Mutex::new(steps.into_iter().collect()),
            calls: AtomicUsize::new(0),
            causes: Mutex::default(),
            takes,
            draws: true,
        })
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    async fn step(&self, context: &Context, known: Option<Digest>) -> Result<Generation, Failure> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.causes.lock().push(context.cause);
        let step = self.steps.lock().pop_front();
        tokio::time::sleep(self.takes).await;
        let failure = || Failure::new(FailureKind::Error, "static-props", "told to");
        let page = |lifetime, text: &'static str| {
            let props = Props {
                json: Bytes::from(format!("{text:?}")),
                lifetime,
            };
            if known == Some(Digest::of(&props.json)) {
                return Ok(Outcome::Unchanged(props));
            }
            let body = Bytes::from(format!("{text} {}", self.calls()));
            let document = Document::check(200, [].into_iter(), body).map_err(|_| failure())?;
            Ok(Outcome::Page(props, document))
        };
        let mut tags = Vec::new();
        let outcome = match step.ok_or_else(failure)? {
            Step::Page(lifetime, text) => page(lifetime, text)?,
            Step::Tagged(tag) => {
                tags.push(Tag::new(tag).unwrap());
                page(Lifetime::Never, tag)?
            }
            Step::NotFound => Outcome::NotFound(Lifetime::Inherit),
            Step::Fail => return Err(failure()),
            Step::Panic => panic!("told to"),
        };
        Ok(Generation {
            outcome,
            tags,
            cost: Cost::default(),
        })
    }
}

impl Render for Fake {
    fn module(&self) -> Digest {
        self.module
    }

    fn generate<'a>(
        &'a self,
        context: &'a Context,
        known: Option<Digest>,
    ) -> Pending<'a, Result<Generation, Failure>> {
        Box::pin(self.step(context, known))
    }

    fn shell<'a>(&'a self, _: &'a Context) -> Pending<'a, Result<Document, Failure>> {
        let shell = Document::check(200, [].into_iter(), Bytes::from_static(b"shell"));
        let draws = self.draws;
        Box::pin(async move {
            assert!(draws, "told not to");
            shell.map_err(|_| Failure::new(FailureKind::Error, "shell", ""))
        })
    }

    fn static_paths(&self, _: Arc<str>) -> Pending<'_, Result<PathList, Failure>> {
        Box::pin(async {
            Ok(PathList {
                paths: Vec::new(),
                fallback: Fallback::Blocking,
            })
        })
    }
}

impl Config {
    fn few() -> Self {
        Self {
            concurrency: 4,
            queue: 100,
            wait: Duration::from_secs(10),
            await_module: false,
        }
    }
}

fn isr() -> Isr {
    isr_with(Config::few())
}

fn isr_with(config: Config) -> Isr {
    let in_memory = store::Config {
        memory: 1 << 20,
        folder: None,
        disk: crate::store::Space::default(),
    };
    isr_over(in_memory, config)
}

fn isr_over(store: store::Config, config: Config) -> Isr {
    let metrics = Arc::new(Metrics::new());
    let parts = Parts {
        store: Tiers::open(store, metrics.clone()).unwrap(),
        clock: Clock::starting_at(Timestamp::from_millis(1_000_000)),
        runtime: Handle::current(),
        incidents: Arc::default(),
        metrics,
    };
    Isr::new(config, parts)
}

fn policy() -> Policy {
    Policy {
        revalidate: Revalidate::Never,
        max_stale: Duration::from_secs(31_536_000),
        render_on_change: false,
        concurrency: 4,
    }
}

fn ask(renderer: &Arc<Fake>) -> Ask {
    ask_under(policy(), renderer, "/posts/1")
}

fn ask_under(policy: Policy, renderer: &Arc<Fake>, path: &str) -> Ask {
    let renderer: Arc<dyn Render> = renderer.clone();
    let params = vec![Param {
        name: "id".into(),
        values: vec!["1".into()],
    }];
    let page = Page {
        route: Arc::from("/posts/[id]"),
        renderer,
        policy,
    };
    let key = PageKey::new(path, &[]);
    Ask {
        page: Arc::new(page),
        key,
        path: path.into(),
        params,
        query: Vec::new(),
        toll: None,
    }
}

fn body(entry: &Entry) -> String {
    match &entry.content {
        Content::Document { body, .. } => String::from_utf8(body.identity().body.to_vec()).unwrap(),
        other => other.as_str().to_owned(),
    }
}

fn told(served: Result<Served, Refused>) -> String {
    match served {
        Ok(Served::Hit { entry, .. }) => format!("hit {}", body(&entry)),
        Ok(Served::Stale {
            entry,
            why,
            renewal,
        }) => {
            format!("stale {} {} {renewal:?}", body(&entry), why.as_str())
        }
        Ok(Served::Rendered {
            entry,
            collapsed: false,
            ..
        }) => format!("miss {}", body(&entry)),
        Ok(Served::Rendered {
            entry,
            collapsed: true,
            ..
        }) => format!("joined {}", body(&entry)),
        Ok(Served::LastGood { entry, .. }) => format!("last good {}", body(&entry)),
        Ok(Served::Shell(shell)) => String::from_utf8(shell.body.to_vec()).unwrap(),
        Err(refused) => refused.as_str().to_owned(),
    }
}

async fn get(isr: &Isr, ask: &Ask) -> String {
    told(isr.serve(ask.clone(), Patience::Wait).await)
}

async fn seconds(span: f64) {
    tokio::time::sleep(Duration::from_secs_f64(span)).await;
}

const TWO: Lifetime = Lifetime::Seconds(2);

/// A call for one page.
async fn revalidate(isr: &Isr, ask: Ask, only_generated: bool) -> Result<Arc<Entry>, Refused> {
    isr.announce([ask.key.clone()]).await;
    isr.renew(ask, &[], only_generated).await
}

#[tokio::test(start_paused = true)]
async fn a_page_is_made_once_shown_while_fresh_and_renewed_behind_its_readers() {
    let fake = Fake::new([Step::Page(TWO, "a"), Step::Page(TWO, "b")]);
    let (isr, ask) = (isr(), ask(&fake));
    assert_eq!(get(&isr, &ask).await, "miss a 1");
    assert_eq!(get(&isr, &ask).await, "hit a 1");
    seconds(1.9).await;
    assert_eq!(get(&isr, &ask).await, "hit a 1");
    seconds(0.4).await;
    assert_eq!(get(&isr, &ask).await, "stale a 1 expired Started");
    assert_eq!(get(&isr, &ask).await, "stale a 1 expired Collapsed");
    seconds(0.2).await;
    assert_eq!(get(&isr, &ask).await, "hit b 2");
    assert_eq!(*fake.causes.lock(), [Cause::FirstRequest, Cause::Stale]);
}

#[tokio::test(start_paused = true)]
async fn fifty_cold_readers_share_one_generation_and_one_failure() {
    let fake = Fake::new([Step::Fail, Step::Page(TWO, "a")]);
    let (isr, ask) = (isr(), ask(&fake));
    for expected in ["error", "joined a 2"] {
        let readers: Vec<_> = (0..50)
            .map(|_| {
                tokio::spawn({
                    let (isr, ask) = (isr.clone(), ask.clone());
                    async move { get(&isr, &ask).await }
                })
            })
            .collect();
        let mut answers = Vec::new();
        for reader in readers {
            answers.push(reader.await.unwrap());
        }
        assert!(
            answers.iter().filter(|answer| *answer == expected).count() >= 49,
            "{answers:?}"
        );
    }
    assert_eq!(fake.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failure_keeps_the_last_good_page_and_backs_off() {
    let fake = Fake::new([
        Step::Page(TWO, "a"),
        Step::Fail,
        Step::Panic,
        Step::Page(TWO, "b"),
    ]);
    let (isr, ask) = (isr(), ask(&fake));
    get(&isr, &ask).await;
    seconds(2.5).await;
    assert_eq!(get(&isr, &ask).await, "stale a 1 expired Started");
    seconds(0.5).await;
    assert_eq!(get(&isr, &ask).await, "stale a 1 expired BackOff");
    seconds(3.0).await;
    assert_eq!(get(&isr, &ask).await, "stale a 1 expired Started");
    seconds(4.0).await;
    assert_eq!(get(&isr, &ask).await, "stale a 1 expired BackOff");
    seconds(3.0).await;
    assert_eq!(get(&isr, &ask).await, "stale a 1 expired Started");
    seconds(0.2).await;
    assert_eq!(get(&isr, &ask).await, "hit b 4");
    let kinds: Vec<_> = isr
        .0
        .parts
        .incidents
        .latest(9)
        .iter()
        .map(|incident| incident.kind.clone())
        .collect();
    assert_eq!(kinds, ["host", "error"]);
}

#[tokio::test(start_paused = true)]
async fn a_page_older_than_max_stale_is_waited_for_and_shown_if_that_fails() {
    let fake = Fake::new([Step::Page(TWO, "a"), Step::Page(TWO, "b"), Step::Fail]);
    let policy = Policy {
        max_stale: Duration::from_secs(6),
        ..policy()
    };
    let (isr, ask) = (isr(), ask_under(policy, &fake, "/posts/1"));
    get(&isr, &ask).await;
    seconds(6.5).await;
    assert_eq!(get(&isr, &ask).await, "miss b 2");
    seconds(6.5).await;
    assert_eq!(get(&isr, &ask).await, "last good b 2");
    assert_eq!(get(&isr, &ask).await, "stale b 2 expired BackOff");
}

#[tokio::test(start_paused = true)]
async fn an_on_demand_call_never_settles_for_data_read_before_it() {
    let fake = Fake::slow(
        Duration::from_secs(2),
        [
            Step::Page(TWO, "old"),
            Step::Page(TWO, "new"),
            Step::Page(TWO, "newer"),
        ],
    );
    let (isr, ask) = (isr(), ask(&fake));
    let reader = tokio::spawn({
        let (isr, ask) = (isr.clone(), ask.clone());
        async move { get(&isr, &ask).await }
    });
    seconds(0.5).await;
    let calls: Vec<_> = (0..3)
        .map(|_| {
            tokio::spawn({
                let (isr, ask) = (isr.clone(), ask.clone());
                async move { revalidate(&isr, ask, false).await.map(|entry| body(&entry)) }
            })
        })
        .collect();
    assert_eq!(
        reader.await.unwrap(),
        "stale old 1 path-invalidated Collapsed"
    );
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), "new 2");
    }
    assert_eq!(get(&isr, &ask).await, "hit new 2");
    assert_eq!(fake.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_on_demand_call_keeps_the_last_good_page() {
    let fake = Fake::new([Step::Page(Lifetime::Never, "a"), Step::Fail]);
    let (isr, ask) = (isr(), ask(&fake));
    assert!(matches!(
        revalidate(&isr, ask.clone(), true).await,
        Err(Refused::NeverGenerated)
    ));
    get(&isr, &ask).await;
    assert!(matches!(
        revalidate(&isr, ask.clone(), true).await,
        Err(Refused::Failed(_))
    ));
    assert_eq!(get(&isr, &ask).await, "stale a 1 path-invalidated BackOff");
}

#[tokio::test(start_paused = true)]
async fn a_purge_takes_the_last_good_page_also_while_it_is_being_made() {
    let fake = Fake::new([Step::Page(TWO, "old"), Step::Page(TWO, "new"), Step::Fail]);
    let (isr, ask) = (isr(), ask(&fake));
    let early = tokio::spawn({
        let (isr, ask) = (isr.clone(), ask.clone());
        async move { get(&isr, &ask).await }
    });
    seconds(0.05).await;
    assert!(!isr.purge(&ask).await);
    assert_eq!(get(&isr, &ask).await, "miss new 2");
    early.await.unwrap();
    assert_eq!(get(&isr, &ask).await, "hit new 2");
    assert!(isr.purge(&ask).await);
    assert_eq!(get(&isr, &ask).await, "error");
}

#[tokio::test(start_paused = true)]
async fn tags_and_paths_are_invalidated_softly() {
    let fake = Fake::new([
        Step::Tagged("news"),
        Step::Tagged("news"),
        Step::Tagged("news"),
    ]);
    let (isr, ask) = (isr(), ask(&fake));
    get(&isr, &ask).await;
    isr.invalidate_tags(&[Tag::new("sport").unwrap()]);
    assert_eq!(get(&isr, &ask).await, "hit news 1");
    isr.invalidate_tags(&[Tag::new("news").unwrap()]);
    assert_eq!(
        get(&isr, &ask).await,
        "stale news 1 tag-invalidated Started"
    );
    seconds(0.2).await;
    assert_eq!(get(&isr, &ask).await, "hit news 2");
    isr.invalidate_paths([ask.key.clone()]);
    assert_eq!(
        get(&isr, &ask).await,
        "stale news 2 path-invalidated Started"
    );
    seconds(0.2).await;
    assert_eq!(get(&isr, &ask).await, "hit news 3");
}

#[tokio::test(start_paused = true)]
async fn not_found_is_an_entry_that_does_not_stick() {
    let fake = Fake::new([Step::Page(TWO, "a"), Step::NotFound, Step::Page(TWO, "b")]);
    let (isr, ask) = (isr(), ask(&fake));
    get(&isr, &ask).await;
    seconds(3.0).await;
    get(&isr, &ask).await;
    seconds(0.2).await;
    assert_eq!(get(&isr, &ask).await, "hit not-found");
    seconds(67.0).await;
    assert_eq!(get(&isr, &ask).await, "stale not-found expired Started");
    seconds(0.2).await;
    assert_eq!(get(&isr, &ask).await, "hit b 3");
}

#[tokio::test(start_paused = true)]
async fn the_same_props_are_not_rendered_twice_where_the_route_says_so() {
    let fake = Fake::new([
        Step::Page(TWO, "a"),
        Step::Page(TWO, "a"),
        Step::Page(TWO, "b"),
    ]);
    let policy = Policy {
        render_on_change: true,
        ..policy()
    };
    let (isr, ask) = (isr(), ask_under(policy, &fake, "/posts/1"));
    for expected in ["miss a 1", "hit a 1", "hit b 3"] {
        get(&isr, &ask).await;
        seconds(0.2).await;
        let shown = get(&isr, &ask).await;
        assert_eq!(shown, expected.replace("miss", "hit"));
        seconds(3.0).await;
    }
    assert_eq!(fake.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_shell_is_shown_while_the_page_is_made_and_not_for_ever() {
    let fake = Fake::new([Step::Fail, Step::Page(TWO, "a")]);
    let (isr, ask) = (isr(), ask(&fake));
    let shell = || async { told(isr.serve(ask.clone(), Patience::Shell).await) };
    assert_eq!(shell().await, "shell");
    seconds(0.2).await;
    assert_eq!(shell().await, "error");
    seconds(40.0).await;
    assert_eq!(shell().await, "shell");
    seconds(0.2).await;
    assert_eq!(shell().await, "hit a 2");
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_a_shell_is_drawn_costs_the_shell_alone() {
    let mut fake = Fake::new([Step::Page(TWO, "a")]);
    Arc::get_mut(&mut fake).unwrap().draws = false;
    let (isr, ask) = (isr(), ask(&fake));
    let page = told(isr.serve(ask, Patience::Shell).await);
    assert_eq!(page, "joined a 1");
    let incidents = isr.0.parts.incidents.latest(9);
    assert_eq!(incidents.len(), 1, "{incidents:?}");
    assert!(incidents[0].kind == "host" && incidents[0].message.contains("report it"));
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_leaves_neither_ends_nor_repeats_the_generation() {
    let fake = Fake::new([Step::Page(TWO, "a")]);
    let (isr, ask) = (isr(), ask(&fake));
    let gone = tokio::time::timeout(Duration::from_millis(50), get(&isr, &ask)).await;
    assert!(gone.is_err());
    seconds(0.2).await;
    assert_eq!(get(&isr, &ask).await, "hit a 1");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_readers_without_a_page_only() {
    let fake = Fake::slow(
        Duration::from_secs(60),
        (0..9).map(|_| Step::Page(Lifetime::Never, "a")),
    );
    let isr = isr_with(Config {
        concurrency: 1,
        queue: 1,
        wait: Duration::from_secs(5),
        await_module: false,
    });
    let ask = |path: &str| ask_under(policy(), &fake, path);
    assert_eq!(get(&isr, &ask("/posts/0")).await, "miss a 1");
    let _first = tokio::spawn({
        let (isr, ask) = (isr.clone(), ask("/posts/1"));
        async move { get(&isr, &ask).await }
    });
    seconds(0.1).await;
    assert_eq!(get(&isr, &ask("/posts/2")).await, "overloaded");
    isr.invalidate_paths([PageKey::new("/posts/0", &[])]);
    assert_eq!(
        get(&isr, &ask("/posts/0")).await,
        "stale a 1 path-invalidated Started"
    );
}

#[tokio::test(start_paused = true)]
async fn readers_who_left_leave_nothing_to_be_made() {
    let fake = Fake::slow(
        Duration::from_secs(8),
        (0..9).map(|_| Step::Page(Lifetime::Never, "a")),
    );
    let isr = isr_with(Config {
        concurrency: 1,
        queue: 3,
        wait: Duration::from_secs(5),
        await_module: false,
    });
    let ask = |path: &str| ask_under(policy(), &fake, path);
    let running = tokio::spawn({
        let (isr, ask) = (isr.clone(), ask("/posts/0"));
        async move { get(&isr, &ask).await }
    });
    seconds(0.1).await;
    let [one, two, three] = ["/posts/1", "/posts/2", "/posts/3"].map(ask);
    let left = tokio::join!(get(&isr, &one), get(&isr, &two), get(&isr, &three));
    assert_eq!([left.0, left.1, left.2], ["overloaded"; 3]);
    // They filled the queue, and give it up for who comes later.
    assert_eq!(get(&isr, &ask("/posts/4")).await, "miss a 2");
    assert_eq!(running.await.unwrap(), "miss a 1");
    seconds(20.0).await;
    assert_eq!(fake.calls(), 2);
    // A page is made when its reader comes back; who joins that reader has it as well.
    let again = tokio::join!(get(&isr, &one), get(&isr, &one));
    assert_eq!((&*again.0, &*again.1), ("miss a 3", "joined a 3"));
}

#[tokio::test(start_paused = true)]
async fn prerendering_makes_what_is_missing_and_tells_what_failed() {
    let fake = Fake::new([Step::Page(TWO, "a"), Step::Page(TWO, "b"), Step::Fail]);
    let isr = isr();
    let asks = |paths: &[&str]| -> Vec<Ask> {
        paths
            .iter()
            .map(|path| ask_under(policy(), &fake, path))
            .collect()
    };
    let make = async |paths: &[&str], retry| {
        let tally = Tally::default();
        isr.prerender(asks(paths), retry, &tally).await;
        let Count {
            made,
            fresh,
            failed,
            ..
        } = tally.count();
        ((made, fresh, failed), tally.failures())
    };
    let first = make(&["/posts/1", "/posts/2"], Retry::WhenDue).await;
    assert_eq!(first.0, (2, 0, 0));
    let all = ["/posts/1", "/posts/2", "/posts/3"];
    let (counts, failures) = make(&all, Retry::WhenDue).await;
    assert_eq!(counts, (0, 2, 1));
    assert_eq!(failures[0].0.as_str(), "/posts/3");
    // In its back-off it is not asked for again, except by a person.
    assert_eq!(make(&all, Retry::WhenDue).await.0, (0, 2, 1));
    assert_eq!(fake.calls(), 3);
    assert_eq!(make(&all, Retry::AtOnce).await.0, (0, 2, 1));
    assert_eq!(fake.calls(), 4);
    assert!(
        fake.causes
            .lock()
            .iter()
            .all(|cause| *cause == Cause::Build)
    );
}

#[tokio::test(start_paused = true)]
async fn an_author_waits_for_what_the_saved_module_makes() {
    let fake = |module: &[u8], step| {
        let mut fake = Arc::into_inner(Fake::new([step])).unwrap();
        fake.module = Digest::of(module);
        Arc::new(fake)
    };
    let page = |text| Step::Page(Lifetime::Never, text);
    for (await_module, step, expected) in [
        (false, page("new"), "stale old 1 module-changed Started"),
        (true, page("new"), "miss new 1"),
        (true, Step::Fail, "last good old 1"),
    ] {
        let (old, new) = (fake(b"old", page("old")), fake(b"new", step));
        let isr = isr_with(Config {
            await_module,
            ..Config::few()
        });
        get(&isr, &ask(&old)).await;
        assert_eq!(get(&isr, &ask(&new)).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_page_and_a_purge_are_there_after_a_restart() {
    let fake = Fake::slow(
        Duration::ZERO,
        [
            Step::Page(Lifetime::Never, "a"),
            Step::Page(Lifetime::Never, "b"),
        ],
    );
    let folder = tempfile::tempdir().unwrap();
    let on_disk = || {
        let store = store::Config {
            memory: 1 << 20,
            folder: Some(folder.path().to_owned()),
            disk: crate::store::Space::default(),
        };
        isr_over(store, Config::few())
    };
    let (first, second) = (
        ask_under(policy(), &fake, "/posts/1"),
        ask_under(policy(), &fake, "/posts/2"),
    );
    let isr = on_disk();
    revalidate(&isr, first.clone(), false).await.unwrap();
    revalidate(&isr, second.clone(), false).await.unwrap();
    isr.persisted().await.unwrap();
    assert!(isr.purge(&second).await);
    isr.synced().await.unwrap();
    drop(isr);
    let isr = on_disk();
    assert!(isr.kept(&first.key).is_none());
    assert_eq!(get(&isr, &first).await, "hit a 1");
    let kept = isr.kept(&first.key).unwrap();
    assert!(isr.hit(&first.page, kept.entry(), isr.now()).is_some());
    assert_eq!(get(&isr, &second).await, "error");
}

#[tokio::test]
async fn a_page_that_the_disk_hides_is_not_fresh_after_a_call_about_generated_pages() {
    let folder = tempfile::tempdir().unwrap();
    let on_disk = || {
        let store = store::Config {
            memory: 1 << 20,
            folder: Some(folder.path().to_owned()),
            disk: crate::store::Space::default(),
        };
        isr_over(store, Config::few())
    };
    let fake = Fake::new([Step::Page(Lifetime::Never, "a")]);
    let ask = ask(&fake);
    let isr = on_disk();
    revalidate(&isr, ask.clone(), true).await.unwrap_err();
    revalidate(&isr, ask.clone(), false).await.unwrap();
    isr.persisted().await.unwrap();
    drop(isr);
    let isr = on_disk();
    let hung = isr.0.parts.store.hang();
    tokio::time::pause();
    let hidden = revalidate(&isr, ask.clone(), true).await;
    assert!(matches!(hidden, Err(Refused::NeverGenerated)));
    tokio::time::advance(Duration::from_secs(10)).await;
    tokio::time::resume();
    drop(hung);
    let got = get(&isr, &ask).await;
    assert_eq!(got, "stale a 1 path-invalidated Started");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_holds_a_call_up_once_and_not_for_every_page() {
    let folder = tempfile::tempdir().unwrap();
    let store = store::Config {
        memory: 1 << 20,
        folder: Some(folder.path().to_owned()),
        disk: crate::store::Space::default(),
    };
    let isr = isr_over(store, Config::few());
    let (hung, start) = (isr.0.parts.store.hang(), tokio::time::Instant::now());
    let renderer = Fake::new([]);
    let asks: Vec<Ask> = (0..1_000)
        .map(|number| ask_under(policy(), &renderer, &format!("/{number}")))
        .collect();
    for ask in &asks {
        assert!(!isr.purge(ask).await);
    }
    isr.invalidate_paths(asks.into_iter().map(|ask| ask.key));
    let told = isr.synced().await.unwrap_err();
    assert_eq!(told.to_string(), "the disk takes long");
    assert!(start.elapsed() < Duration::from_secs(20));
    drop(hung);
    while isr.synced().await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_the_place_to_draw_a_shell_longer_than_for_a_page() {
    let config = Config {
        concurrency: 1,
        wait: Duration::from_secs(1),
        ..Config::few()
    };
    let isr = isr_with(config);
    let hour = Duration::from_secs(3600);
    let slow = Fake::slow(hour, [Step::Page(Lifetime::Never, "a")]);
    let busy = tokio::spawn({
        let (isr, ask) = (isr.clone(), ask_under(policy(), &slow, "/busy"));
        async move { get(&isr, &ask).await }
    });
    seconds(0.1).await;
    let shell = isr.serve(ask(&Fake::new([])), Patience::Shell);
    let shell = tokio::time::timeout(Duration::from_secs(2), shell).await;
    assert_eq!(told(shell.expect("the reader waits")), "overloaded");
    busy.abort();
}

#[tokio::test(start_paused = true)]
async fn pages_made_ahead_for_many_routes_at_once_do_not_crowd_each_other_out() {
    let config = Config {
        concurrency: 2,
        queue: 10,
        ..Config::few()
    };
    let isr = isr_with(config);
    let fake = Fake::new((0..50).map(|_| Step::Page(Lifetime::Never, "a")));
    let tally = Tally::default();
    let routes = (0..50).map(|number| {
        let ask = ask_under(policy(), &fake, &format!("/{number}"));
        isr.prerender([ask], Retry::WhenDue, &tally)
    });
    futures_util::future::join_all(routes).await;
    assert_eq!((tally.count().made, tally.count().failed), (50, 0));
}

#[tokio::test(start_paused = true)]
async fn a_page_made_ahead_that_readers_push_out_of_the_queue_is_made_later() {
    let isr = isr_with(Config {
        concurrency: 1,
        queue: 1,
        ..Config::few()
    });
    let slow = Fake::slow(
        Duration::from_secs(1),
        (0..3).map(|_| Step::Page(Lifetime::Never, "a")),
    );
    let read = |path: &str| {
        let (isr, ask) = (isr.clone(), ask_under(policy(), &slow, path));
        tokio::spawn(async move { get(&isr, &ask).await })
    };
    let tally = Arc::new(Tally::default());
    let first = read("/running");
    seconds(0.1).await;
    let ahead = tokio::spawn({
        let (isr, tally, ask) = (
            isr.clone(),
            tally.clone(),
            ask_under(policy(), &slow, "/ahead"),
        );
        async move { isr.prerender([ask], Retry::WhenDue, &tally).await }
    });
    seconds(0.1).await;
    let second = read("/urgent");
    for reader in [first, second] {
        assert!(reader.await.unwrap().starts_with("miss a"));
    }
    assert_eq!(tally.count().done(), 0);
    ahead.await.unwrap();
    assert_eq!((tally.count().made, tally.count().failed), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn who_comes_too_late_for_a_generation_does_not_repeat_it() {
    let fake = Fake::new([
        Step::Page(Lifetime::Never, "a"),
        Step::Page(Lifetime::Never, "b"),
    ]);
    let (isr, ask) = (isr(), ask(&fake));
    get(&isr, &ask).await;
    // As a reader does who saw the page stale just before it was renewed.
    let (wait, led) = isr
        .0
        .launch(ask.clone(), 0, Priority::Background, Cause::Stale);
    assert!(led);
    let landed = isr.0.landed(wait, Duration::from_secs(1)).await;
    assert_eq!(
        landed.map(|entry| body(&entry)).ok().as_deref(),
        Some("a 1")
    );
    assert_eq!(fake.calls(), 1);
}

fn routes(names: &[&str]) -> BTreeSet<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

/// The same page as `ask`, asked for through another route.
fn through(route: &str, ask: &Ask) -> Ask {
    let page = Page {
        route: Arc::from(route),
        renderer: ask.page.renderer.clone(),
        policy: ask.page.policy.clone(),
    };
    Ask {
        page: Arc::new(page),
        ..ask.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_of_another_route_is_shown_while_that_has_pages_and_is_never_fresh() {
    let steps = ["a", "a", "c"].map(|text| Step::Page(Lifetime::Never, text));
    let fake = Fake::new(steps);
    let policy = Policy {
        render_on_change: true,
        ..policy()
    };
    let (isr, by_id) = (isr(), ask_under(policy, &fake, "/posts/1"));
    let by_slug = through("/posts/[slug]", &by_id);
    isr.serve_routes(routes(&["/posts/[id]"]));
    assert_eq!(get(&isr, &by_id).await, "miss a 1");
    // Its module is the same, and so are the props; but it is a page of another route.
    let kept = isr.kept(&by_slug.key).unwrap();
    assert!(isr.hit(&by_id.page, kept.entry(), isr.now()).is_some());
    assert!(isr.hit(&by_slug.page, kept.entry(), isr.now()).is_none());
    isr.serve_routes(routes(&["/posts/[id]", "/posts/[slug]"]));
    let shown = get(&isr, &by_slug).await;
    assert_eq!(shown, "stale a 1 module-changed Started");
    seconds(0.2).await;
    assert_eq!(get(&isr, &by_slug).await, "hit a 2");
    // The route that made the page is gone: its page must not be shown, and may come back.
    isr.serve_routes(routes(&["/posts/[id]"]));
    assert_eq!(get(&isr, &by_id).await, "miss c 3");
    assert_eq!(get(&isr, &by_id).await, "hit c 3");
}

#[tokio::test(start_paused = true)]
async fn pages_of_a_route_that_is_gone_are_there_until_they_are_forgotten() {
    let steps = ["a", "b"].map(|text| Step::Page(Lifetime::Never, text));
    let fake = Fake::new(steps);
    let (isr, ask) = (isr(), ask(&fake));
    assert_eq!(get(&isr, &ask).await, "miss a 1");
    isr.serve_routes(routes(&["/"]));
    isr.serve_routes(routes(&["/", "/posts/[id]"]));
    assert_eq!(get(&isr, &ask).await, "hit a 1");
    assert_eq!(isr.forget_routes(routes(&["/posts/[id]"])).await, 1);
    // What was under way by then is not kept either.
    let early = tokio::spawn({
        let (isr, ask) = (isr.clone(), ask.clone());
        async move { get(&isr, &ask).await }
    });
    seconds(0.05).await;
    assert_eq!(isr.forget_routes(routes(&["/posts/[id]"])).await, 0);
    assert_eq!(early.await.unwrap(), "miss b 2");
    assert!(isr.kept(&ask.key).is_none());
}

#[tokio::test(start_paused = true)]
async fn an_editor_who_reloads_and_reloads_has_no_more_places() {
    let steps = ["a", "b"].map(|text| Step::Page(Lifetime::Never, text));
    let fake = Fake::slow(Duration::from_secs(2), steps);
    let (isr, ask) = (isr(), ask(&fake));
    let second = Duration::from_secs(1);
    for _ in 0..2 {
        let left = tokio::time::timeout(second / 2, isr.draft(ask.clone())).await;
        assert!(left.is_err());
    }
    // Drafts have one place of the four, and what nobody waits for still runs in it.
    assert_eq!(fake.calls(), 1);
    let draft = isr.draft(ask.clone()).await.unwrap();
    assert_eq!(body(&draft), "b 2");
}
