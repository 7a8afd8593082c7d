//! The compiled route table: the first registered route that matches method and path.
//!
//! Owns the order of decision, which is the order of registration and nothing else: no pattern is
//! more specific than another. Literal patterns are found by the hash of the whole path. Patterns
//! with placeholders are found by the hash of their literal prefix up to its last `/`: the prefixes
//! of a path are hashed in one pass, so a lookup looks only at patterns whose prefix is there,
//! however many routes exist. The smallest number among all candidates wins.

use std::collections::BTreeSet;

use super::index::{EMPTY_HASH, Index, mix};
use super::params::Params;
use super::pattern::Pattern;

#[derive(Clone, Debug)]
struct Route {
    pattern: Pattern,
    // `None` is every method; a list is compared exactly, case included (RFC 9110 9.1).
    methods: Option<Vec<Box<[u8]>>>,
}

impl Route {
    #[inline]
    fn allows(&self, method: &[u8]) -> bool {
        match &self.methods {
            None => true,
            Some(methods) => methods.iter().any(|allowed| **allowed == *method),
        }
    }

    /// The methods that are named.
    fn methods(&self) -> impl Iterator<Item = &[u8]> {
        self.methods.iter().flatten().map(|method| &**method)
    }
}

/// A frozen set of routes. A route's number is its place in the list the table was built from.
#[derive(Clone, Debug)]
pub struct RouteTable {
    routes: Vec<Route>,
    literals: Index,
    prefixes: Index,
    // Bit n: some prefix has n + 1 slashes. The last bit also stands for all deeper ones.
    prefix_depths: u64,
    // Routes whose pattern has no `/` in front of its first placeholder.
    unprefixed: Vec<u32>,
    // The smallest number of a route with placeholders: a literal below it needs no further look.
    first_dynamic: u32,
}

impl RouteTable {
    /// Compiles the table. `None` as methods stands for every method.
    #[must_use]
    pub fn new(routes: Vec<(Pattern, Option<Vec<String>>)>) -> Self {
        let routes: Vec<Route> = routes
            .into_iter()
            .map(|(pattern, methods)| Route {
                pattern,
                methods: methods.map(|methods| {
                    methods
                        .into_iter()
                        .map(|method| method.into_bytes().into_boxed_slice())
                        .collect()
                }),
            })
            .collect();
        let numbered = || (0u32..).zip(&routes);
        let dynamic = || numbered().filter(|(_, route)| route.pattern.as_literal().is_none());
        let literals = Index::build(numbered().filter_map(|(number, route)| {
            let path = route.pattern.as_literal()?;
            Some((mix(EMPTY_HASH, path), path, number))
        }));
        let prefixed: Vec<_> = dynamic()
            .filter_map(|(number, route)| {
                let prefix = directory(route.pattern.literal_prefix())?;
                let (hash, depth) = prefix_hash(prefix);
                Some((hash, prefix, number, depth))
            })
            .collect();
        let prefixes = Index::build(
            prefixed
                .iter()
                .map(|&(hash, prefix, number, _)| (hash, prefix, number)),
        );
        let prefix_depths = prefixed
            .iter()
            .fold(0, |bits, &(.., depth)| bits | depth_bit(depth));
        let unprefixed = dynamic()
            .filter(|(_, route)| directory(route.pattern.literal_prefix()).is_none())
            .map(|(number, _)| number)
            .collect();
        let first_dynamic = dynamic().next().map_or(u32::MAX, |(number, _)| number);
        Self {
            literals,
            prefixes,
            prefix_depths,
            unprefixed,
            first_dynamic,
            routes,
        }
    }

    /// The first registered route that matches, with its captures in `params`; `path` is
    /// percent-decoded. After `None`, and after a route without placeholders, `params` is empty.
    #[inline(always)] // Called for every request, from one hot place and two cold ones.
    pub fn find(&self, method: &[u8], path: &[u8], params: &mut Params) -> Option<usize> {
        params.clear();
        let literal = self
            .literals
            .routes(mix(EMPTY_HASH, path), path)
            .iter()
            .copied()
            .find(|&number| self.routes[number as usize].allows(method))
            .unwrap_or(u32::MAX);
        let winner = if literal <= self.first_dynamic {
            literal
        } else {
            self.find_dynamic(method, path, params, literal)
        };
        (winner != u32::MAX).then_some(winner as usize)
    }

    /// How many routes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is no route at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The pattern of a route that `find` returned.
    ///
    /// # Panics
    /// When the number is not one of this table's.
    #[must_use]
    pub fn pattern(&self, number: usize) -> &Pattern {
        &self.routes[number].pattern
    }

    /// The methods of all routes that match the path, each once and in order; empty when no route
    /// does. For a path that `find` did not find: a route for every method contributes none.
    #[must_use]
    pub fn methods_of(&self, path: &[u8]) -> BTreeSet<&[u8]> {
        let mut methods = BTreeSet::new();
        for &number in self.literals.routes(mix(EMPTY_HASH, path), path) {
            methods.extend(self.routes[number as usize].methods());
        }
        self.visit_dynamic(path, &mut Params::new(), |candidates, params| {
            for &number in candidates {
                let route = &self.routes[number as usize];
                if route.pattern.capture(path, params) {
                    methods.extend(route.methods());
                }
            }
        });
        methods
    }

    /// The methods of all routes, each once and in order; a route for every method contributes
    /// none.
    #[must_use]
    pub fn methods(&self) -> BTreeSet<&[u8]> {
        self.routes.iter().flat_map(Route::methods).collect()
    }

    /// The best of `best` and the routes with placeholders.
    #[inline(never)] // What it keeps at hand would be a burden on the lookup of a literal path.
    fn find_dynamic(&self, method: &[u8], path: &[u8], params: &mut Params, best: u32) -> u32 {
        let mut search = Search {
            routes: &self.routes,
            method,
            path,
            best,
            captured: u32::MAX,
        };
        self.visit_dynamic(path, params, |candidates, params| {
            search.consider(candidates, params);
        });
        search.finish(params)
    }

    /// Shows the routes with placeholders whose literal prefix is one of the path's, ascending
    /// within each prefix. The path's slashes are in the `Params` that are handed on.
    #[inline]
    fn visit_dynamic(
        &self,
        path: &[u8],
        params: &mut Params,
        mut visit: impl FnMut(&[u32], &mut Params),
    ) {
        params.read_slashes(path);
        visit(&self.unprefixed, params);
        let (mut hash, mut start, mut depth) = (EMPTY_HASH, 0, 0);
        while self.prefix_depths >> depth.min(DEPTH_MAX) != 0 {
            let Some(at) = params.slash(depth) else {
                break;
            };
            hash = mix(hash, &path[start..=at]);
            start = at + 1;
            if self.prefix_depths & depth_bit(depth) != 0 {
                visit(self.prefixes.routes(hash, &path[..=at]), params);
            }
            depth += 1;
        }
    }
}

/// A lookup among patterns with placeholders.
struct Search<'a> {
    routes: &'a [Route],
    method: &'a [u8],
    path: &'a [u8],
    best: u32,
    // The route whose captures the `Params` hold; a failed attempt leaves nobody's.
    captured: u32,
}

impl Search<'_> {
    /// Takes the first candidate below the best so far that matches. Candidates are ascending.
    #[inline]
    fn consider(&mut self, candidates: &[u32], params: &mut Params) {
        for &number in candidates {
            if number >= self.best {
                return;
            }
            let route = &self.routes[number as usize];
            if route.allows(self.method) {
                self.captured = u32::MAX;
                if route.pattern.capture(self.path, params) {
                    self.captured = number;
                    self.best = number;
                    return;
                }
            }
        }
    }

    fn finish(self, params: &mut Params) -> u32 {
        let Some(route) = self.routes.get(self.best as usize) else {
            params.clear();
            return self.best;
        };
        if self.captured != self.best {
            params.clear();
            if route.pattern.as_literal().is_none() {
                route.pattern.capture(self.path, params);
            }
        }
        self.best
    }
}

/// The place of the last bit of `prefix_depths`.
const DEPTH_MAX: usize = 63;

fn depth_bit(depth: usize) -> u64 {
    1 << depth.min(DEPTH_MAX)
}

/// Everything up to the last `/`, included; `None` without one.
fn directory(literal: &[u8]) -> Option<&[u8]> {
    memchr::memrchr(b'/', literal).map(|at| &literal[..=at])
}

/// The hash of a prefix that ends in `/`, split as a lookup splits, and its slashes less one.
fn prefix_hash(prefix: &[u8]) -> (u64, usize) {
    let pieces = prefix.split_inclusive(|&byte| byte == b'/');
    pieces
        .enumerate()
        .fold((EMPTY_HASH, 0), |(hash, _), (depth, piece)| {
            (mix(hash, piece), depth)
        })
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
