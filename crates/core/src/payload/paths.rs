//! Which parts of a body somebody asks for: the union of what filters, keys and presets of one source read. Built when
//! the configuration is resolved; walked by the projection for every request.

/// A set of paths into a body, as a trie. The default is empty: nothing is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paths {
    whole: bool,
    // A handful of names at most: a scan is faster than a hash.
    children: Vec<(Box<str>, Paths)>,
}

impl Paths {
    /// Everything.
    pub fn all() -> Self {
        Self { whole: true, children: Vec::new() }
    }

    /// Adds the subtree at `path`; an element of a list is named by its place, from 0.
    pub fn insert<S: AsRef<str>>(&mut self, path: &[S]) {
        if self.whole {
            return;
        }
        let Some((first, rest)) = path.split_first() else { return self.insert_root() };
        self.child_mut(first.as_ref()).insert(rest);
    }

    /// Adds the whole body.
    pub fn insert_root(&mut self) {
        *self = Self::all();
    }

    /// Adds all of `other`.
    pub fn union(&mut self, other: &Self) {
        if other.whole {
            self.insert_root();
        }
        if !self.whole {
            for (name, child) in &other.children {
                self.child_mut(name).union(child);
            }
        }
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        !self.whole && self.children.is_empty()
    }

    /// Whether the whole body is asked for.
    pub fn wants_root(&self) -> bool {
        self.whole
    }

    /// The paths in this set, shortest form, in the order they were added.
    pub fn list(&self) -> Vec<Vec<String>> {
        if self.whole {
            return vec![Vec::new()];
        }
        let below = |(name, child): &(Box<str>, Self)| {
            child
                .list()
                .into_iter()
                .map(|mut rest| {
                    rest.insert(0, name.to_string());
                    rest
                })
                .collect::<Vec<_>>()
        };
        self.children.iter().flat_map(below).collect()
    }

    /// What is asked for below `name`, with the name as this set keeps it.
    pub(super) fn child(&self, name: &str) -> Option<(&str, &Self)> {
        self.children.iter().find(|(n, _)| **n == *name).map(|(n, child)| (&**n, child))
    }

    fn child_mut(&mut self, name: &str) -> &mut Self {
        let at = match self.children.iter().position(|(n, _)| **n == *name) {
            Some(at) => at,
            None => {
                self.children.push((name.into(), Self::default()));
                self.children.len() - 1
            }
        };
        &mut self.children[at].1
    }
}
