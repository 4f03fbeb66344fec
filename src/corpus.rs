//! What the fuzz targets share: how they take bytes apart, and their corpora, which every
//! `cargo test` replays.

/// The bytes that are left; zeroes where none are.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

#[cfg_attr(not(test), allow(dead_code))] // each target has its own needs, and its own features
impl<'a> Bytes<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// So many, or as many as there are.
    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    pub(crate) fn byte(&mut self) -> u8 {
        u8::from_be_bytes(self.array())
    }

    /// A number of two bytes.
    pub(crate) fn number(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    /// A number below `bound`, which is 1 to 256.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }
}

/// Says which file it was when a test panics.
#[cfg(test)]
struct Named<'a>(&'a std::path::Path);

#[cfg(test)]
impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed: {}", self.0.display());
        }
    }
}

/// Runs a fuzz target over its committed corpus. A published package has none.
///
/// # Panics
/// When the target does, or when the corpus is there and empty.
#[cfg(test)]
pub(crate) fn replay(target: &str, run: impl Fn(&[u8])) {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    if !corpus.exists() {
        return;
    }
    let mut count = 0;
    for entry in std::fs::read_dir(corpus.join(target)).unwrap() {
        let path = entry.unwrap().path();
        let _named = Named(&path);
        run(&std::fs::read(&path).unwrap());
        count += 1;
    }
    assert!(count > 0, "no corpus of {target}");
}
