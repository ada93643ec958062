//! A fair queue: clients take turns, so that one with many jobs delays only itself.

use std::collections::{HashMap, VecDeque};

use drystone_mesh::limit::Key;

/// Jobs by client. Each turn takes one job of the next client.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    jobs: HashMap<Key, VecDeque<T>>,
    /// The clients with jobs, in the order of their turns.
    turns: VecDeque<Key>,
    length: usize,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { jobs: HashMap::new(), turns: VecDeque::new(), length: 0 }
    }
}

impl<T> FairQueue<T> {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn push(&mut self, client: Key, job: T) {
        let jobs = self.jobs.entry(client).or_default();
        if jobs.is_empty() {
            self.turns.push_back(client);
        }
        jobs.push_back(job);
        self.length += 1;
    }

    /// The oldest job of the client whose turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        let client = self.turns.pop_front()?;
        let jobs = self.jobs.get_mut(&client)?;
        let job = jobs.pop_front()?;
        if jobs.is_empty() {
            self.jobs.remove(&client);
        } else {
            self.turns.push_back(client);
        }
        self.length -= 1;
        Some(job)
    }

    /// How many jobs this client has.
    pub(super) fn len_of(&self, client: Key) -> usize {
        self.jobs.get(&client).map_or(0, VecDeque::len)
    }

    /// Removes the newest job of the client with most jobs, if it has more than this many.
    pub(super) fn pop_of_largest(&mut self, more_than: usize) -> Option<T> {
        let (client, jobs) = self.jobs.iter_mut().max_by_key(|(_, jobs)| jobs.len())?;
        if jobs.len() <= more_than {
            return None;
        }
        let (client, job) = (*client, jobs.pop_back()?);
        if jobs.is_empty() {
            self.jobs.remove(&client);
            self.turns.retain(|turn| *turn != client);
        }
        self.length -= 1;
        Some(job)
    }

    /// All jobs.
    pub(super) fn take_all(&mut self) -> Vec<T> {
        std::mem::take(self).jobs.into_values().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(name: &str) -> Key {
        Key::text(name)
    }

    fn drain(queue: &mut FairQueue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn clients_take_turns_and_each_keeps_its_order() {
        let mut queue = FairQueue::default();
        for job in ["a1", "a2", "a3"] {
            queue.push(client("a"), job);
        }
        queue.push(client("b"), "b1");
        queue.push(client("c"), "c1");
        assert_eq!((queue.len(), queue.len_of(client("a"))), (5, 3));
        assert_eq!(drain(&mut queue), ["a1", "b1", "c1", "a2", "a3"]);
        assert_eq!((queue.len(), queue.len_of(client("a"))), (0, 0));
    }

    #[test]
    fn the_client_with_most_jobs_loses_its_newest() {
        let mut queue = FairQueue::default();
        for job in ["a1", "a2", "a3"] {
            queue.push(client("a"), job);
        }
        queue.push(client("b"), "b1");
        assert_eq!(queue.pop_of_largest(3), None);
        assert_eq!(queue.pop_of_largest(1), Some("a3"));
        assert_eq!(queue.pop_of_largest(1), Some("a2"));
        assert_eq!(queue.pop_of_largest(1), None);
        assert_eq!(drain(&mut queue), ["a1", "b1"]);

        queue.push(client("a"), "a4");
        assert_eq!(queue.pop_of_largest(0), Some("a4"));
        assert_eq!((drain(&mut queue), queue.len()), (vec![], 0));
    }
}
