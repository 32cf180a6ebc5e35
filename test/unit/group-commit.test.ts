import test from 'ava';
import { alone, type Commit, groupCommits } from '../../lib/group-commit.ts';

class Refusal extends Error {}

/** Notes what is committed together, and refuses what has one of the given pieces. */
function commits(...refused: string[]): Commit<string> & { groups: string[][] } {
  const groups: string[][] = [];
  return {
    groups,
    async run(pieces) {
      groups.push([...pieces]);
      await new Promise((resolve) => setImmediate(resolve));
      const found = pieces.find((piece) => refused.includes(piece));
      if (found === 'broken') throw new Error('nothing works');
      if (found) throw new Refusal(found);
    },
    isRefusal: (error) => error instanceof Refusal,
  };
}

/** Waits until what was handed in has been begun. */
const begun = () => new Promise((resolve) => setTimeout(resolve));

test('what comes together is done as one, and so is what comes meanwhile', async (t) => {
  const commit = commits();
  const together = groupCommits();
  const first = ['a', 'b'].map((piece) => together('key', piece, commit));
  await Promise.resolve();
  first.push(together('key', 'c', commit));
  await begun();
  await Promise.all([...first, ...['d', 'e'].map((piece) => together('key', piece, commit))]);
  t.deepEqual(commit.groups, [
    ['a', 'b', 'c'],
    ['d', 'e'],
  ]);
  await together('key', 'f', commit);
  t.deepEqual(commit.groups.at(-1), ['f']);
});

test('keys have nothing to do with one another', async (t) => {
  const commit = commits();
  const together = groupCommits();
  await Promise.all(['a', 'b'].map((piece) => together(piece, piece, commit)));
  t.deepEqual(commit.groups, [['a'], ['b']]);
});

test('a piece that is refused fails alone', async (t) => {
  const commit = commits('c', 'f');
  const together = groupCommits();
  const outcomes = await Promise.allSettled([...'abcdefgh'].map((piece) => together('key', piece, commit)));
  t.deepEqual(
    outcomes.map((one) => (one.status === 'rejected' ? (one.reason as Error).message : 'done')),
    ['done', 'done', 'c', 'done', 'done', 'f', 'done', 'done'],
  );
});

test('what is no refusal of a piece is told to all at once', async (t) => {
  const commit = commits('broken');
  const together = groupCommits();
  const first = together('key', 'a', commit);
  await begun();
  const outcomes = await Promise.allSettled([
    first,
    ...['b', 'broken', 'd'].map((piece) => together('key', piece, commit)),
  ]);
  t.deepEqual(
    outcomes.map(({ status }) => status),
    ['fulfilled', 'rejected', 'rejected', 'rejected'],
  );
  t.is(commit.groups.length, 2);
  await together('key', 'e', commit);
  t.deepEqual(commit.groups.at(-1), ['e']);
});

test('a process with one call does each piece by itself', async (t) => {
  const commit = commits();
  await Promise.all(['a', 'b'].map((piece) => alone('key', piece, commit)));
  t.deepEqual(commit.groups, [['a'], ['b']]);
});
