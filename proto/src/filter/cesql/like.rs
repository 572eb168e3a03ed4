//! Patterns of LIKE: `%` is any run of characters, `_` is one, `\%` and `\_` are themselves.

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    /// The pattern as written, the quotes undone.
    source: Box<str>,
    /// What stands between the runs; one more than there are runs.
    parts: Box<[Part]>,
}

/// Text without `%`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    /// With at least one `_`, which is nothing here.
    Characters(Box<[Option<char>]>),
}

impl Pattern {
    pub(super) fn new(source: &str) -> Self {
        let mut parts = Vec::new();
        let mut part = Vec::new();
        let mut rest = source.chars().peekable();
        while let Some(one) = rest.next() {
            match one {
                '%' => parts.push(Part::new(&std::mem::take(&mut part))),
                '_' => part.push(None),
                // Any other backslash is a backslash.
                '\\' => part.push(rest.next_if(|next| matches!(next, '%' | '_')).or(Some('\\'))),
                one => part.push(Some(one)),
            }
        }
        parts.push(Part::new(&part));
        Self { source: source.into(), parts: parts.into() }
    }

    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Whether the whole text matches. Each part is best taken where it is found first; only the
    /// last must end the text.
    pub(super) fn matches(&self, text: &str) -> bool {
        let Some((first, rest)) = self.parts.split_first() else { return false };
        let Some(mut left) = first.at_start(text) else { return false };
        let Some((last, middle)) = rest.split_last() else { return left.is_empty() };
        for part in middle {
            match part.find(left) {
                Some(behind) => left = behind,
                None => return false,
            }
        }
        last.ends(left)
    }
}

impl Part {
    fn new(characters: &[Option<char>]) -> Self {
        match characters.iter().copied().collect::<Option<String>>() {
            Some(text) => Self::Text(text.into()),
            None => Self::Characters(characters.into()),
        }
    }

    /// What comes behind it, if the text begins with it.
    fn at_start<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Self::Text(part) => text.strip_prefix(&**part),
            Self::Characters(part) => {
                let mut left = text.chars();
                let fits = part.iter().all(|wanted| {
                    left.next().is_some_and(|found| wanted.is_none_or(|one| one == found))
                });
                fits.then_some(left.as_str())
            }
        }
    }

    /// What comes behind the first place that fits.
    fn find<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Self::Text(part) => text.split_once(&**part).map(|(_, behind)| behind),
            Self::Characters(_) => {
                let mut left = text;
                loop {
                    if let Some(behind) = self.at_start(left) {
                        return Some(behind);
                    }
                    let mut skipped = left.chars();
                    skipped.next()?;
                    left = skipped.as_str();
                }
            }
        }
    }

    fn ends(&self, text: &str) -> bool {
        match self {
            Self::Text(part) => text.ends_with(&**part),
            Self::Characters(part) => {
                let mut left = text.chars();
                part.iter().rev().all(|wanted| {
                    left.next_back().is_some_and(|found| wanted.is_none_or(|one| one == found))
                })
            }
        }
    }
}
