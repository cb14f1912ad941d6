//! What stands between the service and its files (shim.c), and what it has written down.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs,
    io::Write as _,
    os::unix::fs::{DirEntryExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use crate::{dice::Dice, harness::tools};

/// The library, compiled once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| tools::preloaded("durability/shim.c"))
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

/// All that was done to the files, and what there was before.
pub(crate) struct Operations {
    before: Disk,
    list: Vec<Operation>,
}

/// What of the writes that were not synced a power cut leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsynced {
    /// None of them: files are as long as they were at the last sync.
    Lost,
    /// Some pages of some of them, as chance has it.
    Torn,
}

impl Operations {
    pub(crate) fn read(log: &Path, before: Disk) -> Self {
        let bytes = fs::read(log).expect("the log of the operations");
        let mut list = Vec::new();
        let mut at = 0;
        // A process that was killed may have left the last record unfinished.
        while let Some(head) = bytes.get(at..at + 25) {
            let number = |index: usize| u64::from_ne_bytes(head[1 + 8 * index..9 + 8 * index].try_into().expect("eight bytes"));
            let length = usize::try_from(number(2)).expect("a length");
            let Some(data) = bytes.get(at + 25..at + 25 + length) else { break };
            at += 25 + length;
            let end = u64::try_from(at).expect("a length");
            list.push(Operation { kind: head[0], inode: number(0), number: number(1), data: data.to_vec(), end });
        }
        Self { before, list }
    }

    /// Adds to the log what a killed process had written, and did not get to write down, to files in `root`: the next process finds it there.
    pub(crate) fn complete(log: &Path, before: &Disk, root: &Path) {
        let known = Self::read(log, Disk::default());
        let file = fs::File::options().append(true).open(log).expect("the log");
        // A record that was not finished is not part of it.
        file.set_len(known.moments().last().copied().unwrap_or(0)).expect("it can be cut");
        let mut written: HashMap<u64, Vec<u8>> = before.files.iter().map(|(inode, file)| (*inode, file.safe.clone())).collect();
        for operation in &known.list {
            match operation.kind {
                b'N' => _ = written.insert(operation.inode, Vec::new()),
                b'W' | b'T' => apply(written.entry(operation.inode).or_default(), operation),
                _ => {}
            }
        }
        let mut missed = Vec::new();
        for (inode, content) in Disk::of(root).files {
            let known = written.remove(&inode).unwrap_or_default();
            if known != content.safe {
                missed.extend(record(b'T', inode, content.safe.len() as u64, &[]));
                missed.extend(record(b'W', inode, 0, &content.safe));
            }
        }
        (&file).write_all(&missed).expect("it can be added to");
    }

    /// The moments between operations, as lengths of the log.
    pub(crate) fn moments(&self) -> Vec<u64> {
        self.list.iter().map(|operation| operation.end).collect()
    }

    /// The moments just before and after syncs of a folder, when names of files become safe, in their order.
    pub(crate) fn moments_of_folders(&self) -> Vec<u64> {
        let around = self.list.windows(2).filter(|pair| pair.iter().any(|operation| operation.kind == b'L'));
        let after = |begun: &Operation| self.list.iter().find(|operation| operation.kind == b'E' && operation.number == begun.number);
        around.flat_map(|pair| [Some(&pair[0]), after(&pair[1])]).flatten().map(|operation| operation.end).collect()
    }

    /// Whether a file was synced before anything was written to any.
    pub(crate) fn begin_with_a_sync_of(&self, file: &Path) -> bool {
        let inode = inode(file);
        let before = self.list.iter().take_while(|operation| matches!(operation.kind, b'B' | b'L' | b'E'));
        before.filter(|operation| operation.kind == b'E' && operation.inode == inode).count() > 0
    }

    /// How often files were synced in the way that is named.
    pub(crate) fn syncs(&self, way: &str) -> usize {
        self.list.iter().filter(|operation| operation.kind == b'B' && operation.data == way.as_bytes()).count()
    }

    /// Makes of `folder`, which was `root` and is empty, what a power cut at `moment` has left. `ignored`: a way to sync that does not
    /// count.
    pub(crate) fn rebuild(&self, moment: u64, root: &Path, folder: &Path, unsynced: Unsynced, ignored: Option<&str>, dice: &mut Dice) {
        let Disk { mut files, mut folders } = self.before.clone();
        let mut begun: HashMap<u64, Begun> = HashMap::new();
        for operation in self.list.iter().take_while(|operation| operation.end <= moment) {
            let file = || operation.inode;
            match operation.kind {
                b'N' => {
                    if operation.number == 1
                        && let Some(gone) = files.remove(&file())
                    {
                        // The number of a file that was removed, which has its name until a sync of its folder says otherwise.
                        let kept = u64::MAX - operation.end;
                        files.insert(kept, gone);
                        let begun =
                            begun.values_mut().filter_map(|begun| if let Begun::Folder(entries) = begun { Some(entries) } else { None });
                        for entry in folders.values_mut().chain(begun).flatten() {
                            if !entry.is_folder && entry.inode == file() {
                                entry.inode = kept;
                            }
                        }
                    }
                    files.insert(file(), Content::default());
                }
                b'W' | b'T' => files.entry(file()).or_default().pending.push(operation.clone()),
                b'B' if ignored.is_some_and(|way| operation.data == way.as_bytes()) => {}
                b'B' => _ = begun.insert(operation.number, Begun::File(files.entry(file()).or_default().written())),
                b'L' => _ = begun.insert(operation.number, Begun::Folder(listing(&operation.data))),
                b'E' => match begun.remove(&operation.number) {
                    Some(Begun::File(upto)) => files.entry(file()).or_default().sync(upto),
                    Some(Begun::Folder(entries)) => _ = folders.insert(operation.inode, entries),
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
        Disk { files, folders }.make(inode(root), folder);
    }
}

/// An operation as it stands in the log.
fn record(kind: u8, inode: u64, number: u64, data: &[u8]) -> Vec<u8> {
    let numbers = [inode, number, data.len() as u64].map(u64::to_ne_bytes).concat();
    [&[kind], numbers.as_slice(), data].concat()
}

enum Begun {
    /// So many operations on the file were done when its sync began.
    File(usize),
    Folder(Vec<Entry>),
}

/// A name in a folder.
#[derive(Clone, Debug)]
struct Entry {
    is_folder: bool,
    inode: u64,
    name: String,
}

/// Files and folders, by their inodes, as they are on the disk.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    files: HashMap<u64, Content>,
    folders: HashMap<u64, Vec<Entry>>,
}

impl Disk {
    /// All that there is in a folder, as if it were safe.
    pub(crate) fn of(folder: &Path) -> Self {
        let mut disk = Self::default();
        disk.add(folder);
        disk
    }

    fn add(&mut self, folder: &Path) {
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("it can be read")) {
            let (inode, is_folder) = (entry.ino(), entry.file_type().expect("its kind").is_dir());
            if is_folder {
                self.add(&entry.path());
            } else {
                let safe = fs::read(entry.path()).expect("a file");
                self.files.insert(inode, Content { safe, ..Content::default() });
            }
            entries.push(Entry { is_folder, inode, name: entry.file_name().into_string().expect("text") });
        }
        self.folders.insert(inode(folder), entries);
    }

    /// Makes the folder with this inode anew. Only names that a sync of their folder has made safe are there.
    fn make(&self, inode: u64, to: &Path) {
        fs::create_dir_all(to).expect("a folder can be made");
        for Entry { is_folder, inode, name } in self.folders.get(&inode).into_iter().flatten() {
            if *is_folder {
                self.make(*inode, &to.join(name));
            } else {
                let content = self.files.get(inode).map(|file| file.safe.as_slice()).unwrap_or_default();
                fs::write(to.join(name), content).expect("a file can be made");
            }
        }
    }
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).expect("it is there").ino()
}

/// What is in a file on the disk, and what else was written.
#[derive(Clone, Default)]
struct Content {
    safe: Vec<u8>,
    /// How many operations are in `safe`.
    synced: usize,
    pending: Vec<Operation>,
}

impl Content {
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

fn listing(text: &[u8]) -> Vec<Entry> {
    let entry = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let is_folder = words.next() == Some("d");
        let inode = words.next().and_then(|inode| inode.parse().ok()).expect("an inode");
        Entry { is_folder, inode, name: words.next().expect("a name").to_owned() }
    };
    String::from_utf8_lossy(text).lines().map(entry).collect()
}
