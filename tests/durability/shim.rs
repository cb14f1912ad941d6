//! What stands between the service and its files (shim.c), and what it has written down.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::dice::Dice;

/// The library, compiled once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (fresh, library) = (folder.join(format!("shim.{}.so", std::process::id())), folder.join("shim.so"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/durability/shim.c");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let arguments = ["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", source, "-ldl", "-pthread", "-o"];
        let output = Command::new(&compiler).args(arguments).arg(&fresh).output().unwrap_or_else(|error| panic!("{compiler}: {error}"));
        assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
        // Another process may be loading the one that is there.
        fs::rename(&fresh, &library).expect("the library can be put in its place");
        library
    })
}

/// What the service is started with to have its files watched, or go wrong.
pub(crate) struct Shim {
    root: PathBuf,
    pub(crate) log: Option<PathBuf>,
    faults: PathBuf,
}

impl Shim {
    /// For the files beneath `root`. What the shim itself writes is in `own`.
    pub(crate) fn new(root: &Path, own: &Path) -> Self {
        Self { root: root.to_owned(), log: None, faults: own.join("faults") }
    }

    /// Writes down what reaches the files.
    pub(crate) fn recording(mut self) -> Self {
        self.log = Some(self.faults.with_file_name("operations"));
        self
    }

    pub(crate) fn environment(&self) -> Vec<(String, OsString)> {
        let mut environment = vec![
            ("LD_PRELOAD".to_owned(), library().into()),
            ("SHIM_ROOT".to_owned(), self.root.clone().into()),
            ("SHIM_FAULTS".to_owned(), self.faults.clone().into()),
        ];
        environment.extend(self.log.clone().map(|log| ("SHIM_LOG".to_owned(), log.into())));
        environment
    }

    /// From now on this goes wrong, as shim.c says.
    pub(crate) fn breaks(&self, what: &str) {
        let fresh = self.faults.with_extension("new");
        fs::write(&fresh, what).and_then(|()| fs::rename(&fresh, &self.faults)).expect("a fault can be named");
    }

    /// Nothing goes wrong any more.
    pub(crate) fn mends(&self) {
        fs::remove_file(&self.faults).expect("there was a fault");
    }
}

/// An operation on a file or folder, as shim.c has written it down.
#[derive(Clone, Debug)]
struct Operation {
    kind: u8,
    inode: u64,
    number: u64,
    data: Vec<u8>,
    /// Where its record ends in the log.
    end: u64,
}

/// All that was done to the files.
pub(crate) struct Operations(Vec<Operation>);

/// What of the writes that were not synced a power cut leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsynced {
    /// None of them: files are as long as they were at the last sync.
    Lost,
    /// Some pages of some of them, as chance has it.
    Torn,
}

impl Operations {
    pub(crate) fn read(log: &Path) -> Self {
        let bytes = fs::read(log).expect("the log of the operations");
        let mut operations = Vec::new();
        let mut at = 0;
        // A process that was killed may have left the last record unfinished.
        while let Some(head) = bytes.get(at..at + 25) {
            let number = |index: usize| u64::from_ne_bytes(head[1 + 8 * index..9 + 8 * index].try_into().expect("eight bytes"));
            let length = usize::try_from(number(2)).expect("a length");
            let Some(data) = bytes.get(at + 25..at + 25 + length) else { break };
            at += 25 + length;
            let end = u64::try_from(at).expect("a length");
            operations.push(Operation { kind: head[0], inode: number(0), number: number(1), data: data.to_vec(), end });
        }
        Self(operations)
    }

    /// The moments between operations from `begin` on, as lengths of the log.
    pub(crate) fn moments(&self, begin: u64) -> Vec<u64> {
        self.0.iter().map(|operation| operation.end).filter(|end| *end >= begin).collect()
    }

    /// How often files were synced in the way that is named.
    pub(crate) fn syncs(&self, way: &str) -> usize {
        self.0.iter().filter(|operation| operation.kind == b'B' && operation.data == way.as_bytes()).count()
    }

    /// Makes of `folder`, which was `root` and is empty, what a power cut at `moment` has left. `ignored`: a way to sync that does not
    /// count.
    pub(crate) fn rebuild(&self, moment: u64, root: &Path, folder: &Path, unsynced: Unsynced, ignored: Option<&str>, dice: &mut Dice) {
        let mut files: HashMap<u64, Disk> = HashMap::new();
        let mut folders: BTreeMap<PathBuf, Vec<(bool, u64, String)>> = BTreeMap::new();
        let mut begun: HashMap<u64, Begun> = HashMap::new();
        for operation in self.0.iter().take_while(|operation| operation.end <= moment) {
            let file = || operation.inode;
            match operation.kind {
                b'N' => _ = files.insert(file(), Disk::default()),
                b'W' | b'T' => files.entry(file()).or_default().pending.push(operation.clone()),
                b'B' if ignored.is_some_and(|way| operation.data == way.as_bytes()) => {}
                b'B' => _ = begun.insert(operation.number, Begun::File(files.entry(file()).or_default().written())),
                b'L' => {
                    let (path, entries) = listing(&operation.data);
                    begun.insert(operation.number, Begun::Folder(path, entries));
                }
                b'E' => match begun.remove(&operation.number) {
                    Some(Begun::File(upto)) => files.entry(file()).or_default().sync(upto),
                    Some(Begun::Folder(path, entries)) => _ = folders.insert(path, entries),
                    None => {}
                },
                other => panic!("an operation {other}"),
            }
        }
        if unsynced == Unsynced::Torn {
            for file in files.values_mut() {
                file.tear(dice);
            }
        }
        make(root, folder, &folders, &files);
    }
}

enum Begun {
    /// So many operations on the file were done when its sync began.
    File(usize),
    Folder(PathBuf, Vec<(bool, u64, String)>),
}

/// A file, as it is on the disk.
#[derive(Default)]
struct Disk {
    safe: Vec<u8>,
    /// How many operations are in `safe`.
    synced: usize,
    pending: Vec<Operation>,
}

impl Disk {
    fn written(&self) -> usize {
        self.synced + self.pending.len()
    }

    fn sync(&mut self, upto: usize) {
        let number = upto.saturating_sub(self.synced).min(self.pending.len());
        for operation in self.pending.drain(..number) {
            apply(&mut self.safe, &operation);
        }
        self.synced += number;
    }

    /// Half of the writes reach the disk, each whole or but for some of its pages.
    fn tear(&mut self, dice: &mut Dice) {
        for mut operation in std::mem::take(&mut self.pending) {
            if dice.once_in(2) {
                continue;
            }
            if operation.kind == b'W' && dice.once_in(2) {
                let keep = usize::try_from(dice.roll(operation.data.len() as u64 / 512 + 1)).expect("a length") * 512;
                operation.data.truncate(keep);
            }
            apply(&mut self.safe, &operation);
        }
    }
}

fn apply(file: &mut Vec<u8>, operation: &Operation) {
    let at = usize::try_from(operation.number).expect("a length");
    if operation.kind == b'T' {
        file.resize(at, 0);
        return;
    }
    let end = at + operation.data.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[at..end].copy_from_slice(&operation.data);
}

fn listing(text: &[u8]) -> (PathBuf, Vec<(bool, u64, String)>) {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines();
    let path = PathBuf::from(lines.next().expect("the folder's path"));
    let entry = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let is_folder = words.next() == Some("d");
        let inode = words.next().and_then(|inode| inode.parse().ok()).expect("an inode");
        (is_folder, inode, words.next().expect("a name").to_owned())
    };
    (path, lines.map(entry).collect())
}

/// Only names that a sync of their folder has made safe are there.
fn make(from: &Path, to: &Path, folders: &BTreeMap<PathBuf, Vec<(bool, u64, String)>>, files: &HashMap<u64, Disk>) {
    fs::create_dir_all(to).expect("a folder can be made");
    for (is_folder, inode, name) in folders.get(from).into_iter().flatten() {
        if *is_folder {
            make(&from.join(name), &to.join(name), folders, files);
        } else {
            let content = files.get(inode).map(|file| file.safe.as_slice()).unwrap_or_default();
            fs::write(to.join(name), content).expect("a file can be made");
        }
    }
}
