import { spawnSync } from 'node:child_process';
import {
  appendFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { appendLine } from '../../../../lib/cni/log/file.ts';
import { fill, mountDisk } from '../../../support/full-disk.ts';
import { run } from '../../../support/run.ts';

function directory(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'cni-log-'));
  t.teardown(() => rmSync(path, { recursive: true }));
  return path;
}

const generous = { maxSize: 1024 * 1024, keep: 3 };
const append = join(import.meta.dirname, 'append-lines.ts');
const linesOf = (text: string) => text.split('\n').slice(0, -1);

test('a file is created for its owner alone, with its directory, and lines are added to it', (t) => {
  const file = join(directory(t), 'new/deep/calls.jsonl');
  appendLine(file, 'one\n', generous);
  appendLine(file, 'two\n', generous);
  t.is(readFileSync(file, 'utf8'), 'one\ntwo\n');
  t.is(statSync(file).mode & 0o777, 0o600);
  t.is(statSync(join(file, '..')).mode & 0o777, 0o700);
});

test('a full file is put aside, and the oldest goes', (t) => {
  const dir = directory(t);
  const file = join(dir, 'calls.jsonl');
  for (let i = 0; i < 9; i++) appendLine(file, `${i}`.repeat(9).concat('\n'), { maxSize: 20, keep: 2 });
  t.deepEqual(readdirSync(dir).toSorted(), ['calls.jsonl', 'calls.jsonl.1', 'calls.jsonl.2']);
  const numbers = (name: string) => linesOf(readFileSync(join(dir, name), 'utf8')).map((line) => line[0]);
  t.deepEqual(numbers('calls.jsonl'), ['8']);
  t.deepEqual(numbers('calls.jsonl.1'), ['6', '7']);
  t.deepEqual(numbers('calls.jsonl.2'), ['4', '5']);
});

test('a line longer than a file may be has a file of its own', (t) => {
  const file = join(directory(t), 'calls.jsonl');
  for (const line of ['a\n', `${'b'.repeat(100)}\n`, 'c\n']) appendLine(file, line, { maxSize: 50, keep: 3 });
  t.is(readFileSync(`${file}.2`, 'utf8'), 'a\n');
  t.is(readFileSync(`${file}.1`, 'utf8').length, 101);
  t.is(readFileSync(file, 'utf8'), 'c\n');
});

test('of many processes that write and rotate at once, no line is torn and none is lost', async (t) => {
  const dir = directory(t);
  const file = join(dir, 'calls.jsonl');
  const names = Array.from({ length: 8 }, (_, i) => `p${i}`);
  const count = 400;
  const argv = (name: string) =>
    [process.execPath, '--no-warnings', append, file, name, `${count}`, '20000', '100'] as const;
  await Promise.all(names.map((name) => run(argv(name))));
  const texts = readdirSync(dir).map((name) => readFileSync(join(dir, name), 'utf8'));
  t.true(texts.length > 20, `${texts.length} files`);
  const lines = texts
    .flatMap(linesOf)
    .map((line) => JSON.parse(line) as { name: string; number: number; padding: string });
  t.is(lines.length, names.length * count);
  for (const name of names)
    t.deepEqual(
      lines
        .filter((line) => line.name === name)
        .map(({ number }) => number)
        .toSorted((a, b) => a - b),
      Array.from({ length: count }, (_, number) => number),
      name,
    );
});

test('who is stopped while it renames keeps nobody from writing', async (t) => {
  const dir = directory(t);
  const file = join(dir, 'calls.jsonl');
  const small = { maxSize: 20, keep: 3 };
  writeFileSync(file, `${'x'.repeat(30)}\n`);
  const locked = spawnSync('flock', [
    file,
    process.execPath,
    '--no-warnings',
    append,
    file,
    'other',
    '3',
    '20',
    '3',
  ]);
  t.is(locked.status, 0, `${locked.stderr}`);
  t.deepEqual(readdirSync(dir), ['calls.jsonl']);
  t.is(linesOf(readFileSync(file, 'utf8')).length, 4);
  appendLine(file, 'after\n', small);
  t.is(readFileSync(file, 'utf8'), 'after\n', 'once the lock is free, it is put aside');
});

test('what is no file of the log is refused, at once and untouched', async (t) => {
  const dir = directory(t);
  const victim = join(dir, 'victim');
  writeFileSync(victim, 'precious');
  const refused = (name: string, message: RegExp) =>
    t.throws(() => appendLine(join(dir, name), 'line\n', generous), { message }, name);
  symlinkSync(victim, join(dir, 'link'));
  refused('link', /^Cannot write the log ".*link"\. It is a symbolic link.*set another file in CNI_LOG/);
  symlinkSync(join(dir, 'nowhere'), join(dir, 'dangling'));
  refused('dangling', /symbolic link/);
  t.false(existsSync(join(dir, 'nowhere')));
  linkSync(victim, join(dir, 'hard'));
  refused('hard', /It has other hard links/);
  await run(['mkfifo', join(dir, 'fifo')]);
  refused('fifo', /It is not a regular file/);
  mkdirSync(join(dir, 'directory'));
  refused('directory', /directory/);
  symlinkSync(dir, `${dir}-link`);
  t.teardown(() => rmSync(`${dir}-link`));
  t.throws(() => appendLine(join(`${dir}-link`, 'calls'), 'line\n', generous), { message: /symbolic link/ });
  refused('victim/calls', /not a directory/);
  t.is(readFileSync(victim, 'utf8'), 'precious');
});

test('a file that cannot be put aside is written on, and the reason is told', (t) => {
  const file = join(directory(t), 'calls.jsonl');
  mkdirSync(`${file}.1/full`, { recursive: true });
  appendLine(file, 'one\n', { maxSize: 5, keep: 1 });
  t.throws(() => appendLine(file, 'two\n', { maxSize: 5, keep: 1 }), { message: /Cannot write the log/ });
  t.is(readFileSync(file, 'utf8'), 'one\ntwo\n');
});

test('what a full disk has cut off stays on a line of its own', (t) => {
  const file = join(directory(t), 'calls.jsonl');
  appendLine(file, 'one\n', generous);
  appendFileSync(file, '{"half":');
  appendLine(file, 'two\n', generous);
  t.deepEqual(linesOf(readFileSync(file, 'utf8')), ['one', '{"half":', 'two']);
});

test('a full disk is an error, and lines follow once there is room', async (t) => {
  const disk = await mountDisk(t, 'size=64k');
  const file = disk.file('calls.jsonl');
  appendLine(file, '{"first":1}\n', generous);
  await fill(disk);
  const error = t.throws(
    () => {
      for (let i = 0; i < 20; i++) appendLine(file, `{"n":${i},"x":"${'x'.repeat(500)}"}\n`, generous);
    },
    { message: /^Cannot write the log ".*"\. The file system is full/ },
  );
  t.truthy(error);
  await disk.inside.run(['rm', `${disk.path}/filler`]);
  appendLine(file, '{"last":1}\n', generous);
  const lines = linesOf(readFileSync(file, 'utf8'));
  t.is(lines[0], '{"first":1}');
  t.is(lines.at(-1), '{"last":1}');
});
