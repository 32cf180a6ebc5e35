import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { decidingFile } from '../../../../cli/doctor/sysctl-files.ts';

/** Makes files. @param link of files, which leads to /dev/null. @returns the directory that has them. */
function rootWith(t: ExecutionContext, files: Record<string, string>, link?: string): string {
  const root = mkdtempSync(join(tmpdir(), 'sysctl-'));
  t.teardown(() => rmSync(root, { recursive: true }));
  for (const [file, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, file)), { recursive: true });
    writeFileSync(join(root, file), text);
  }
  if (link !== undefined) {
    mkdirSync(dirname(join(root, link)), { recursive: true });
    symlinkSync('/dev/null', join(root, link));
  }
  return root;
}

const forward = 'net/ipv4/ip_forward';
const off = 'net.ipv4.ip_forward = 0\n';
const on = 'net.ipv4.ip_forward = 1\n';

/** The end of the file that decides, and the value it gives. */
function decided(root: string, name = forward, ...aliases: string[]): string | undefined {
  const found = decidingFile([name, ...aliases], root);
  return found && `${found.file.slice(root.length)} ${found.value}`;
}

test('the last file by name decides, in whichever directory it is, and sysctl.conf after all', (t) => {
  const files = { 'etc/sysctl.d/10-a.conf': off, 'usr/lib/sysctl.d/50-b.conf': on };
  t.is(decided(rootWith(t, files)), '/usr/lib/sysctl.d/50-b.conf 1');
  t.is(decided(rootWith(t, { ...files, 'etc/sysctl.conf': off })), '/etc/sysctl.conf 0');
  t.is(decided(rootWith(t, {})), undefined);
});

test('a file hides those of its name in directories behind, also if it is empty or leads to nothing', (t) => {
  const files = { 'usr/lib/sysctl.d/50-b.conf': off };
  t.is(decided(rootWith(t, { ...files, 'run/sysctl.d/50-b.conf': on })), '/run/sysctl.d/50-b.conf 1');
  t.is(decided(rootWith(t, { ...files, 'etc/sysctl.d/50-b.conf': '' })), undefined);
  t.is(decided(rootWith(t, files, 'etc/sysctl.d/50-b.conf')), undefined);
});

test('lines are read as sysctl does', (t) => {
  const inFile = (text: string, name?: string) =>
    decided(rootWith(t, { 'etc/sysctl.d/1.conf': text }), name)?.split(' ')[1];
  t.is(inFile(`#${off};${off}`), undefined);
  t.is(inFile(`${on} -net.ipv4.ip_forward=0`), '0');
  t.is(inFile('net/ipv4/ip_forward = 0  '), '0');
  const dotted = 'net/ipv4/conf/eth0.1/forwarding';
  t.is(inFile('net.ipv4.conf.eth0/1.forwarding = 0', dotted), '0');
  t.is(inFile(`${dotted} = 0`, dotted), '0');
  t.is(inFile('net.ipv4.ip_forward', forward), undefined);
});

test('wildcards set what no line names or keeps from them', (t) => {
  const inFile = (text: string) =>
    decided(rootWith(t, { 'etc/sysctl.d/1.conf': text }), 'net/ipv4/conf/br0/forwarding')?.split(' ')[1];
  const all = 'net.ipv4.conf.*.forwarding = 0\n';
  t.is(inFile(all), '0');
  t.is(inFile(`net.ipv4.conf.br0.forwarding = 1\n${all}`), '1');
  t.is(inFile(`-net.ipv4.conf.br0.forwarding\n${all}`), undefined);
  t.is(inFile('net.ipv4.*.forwarding = 0'), undefined, 'one stands for one name');
});

test('of a setting with two names, the last line by either decides', (t) => {
  const alias = 'net/ipv4/conf/all/forwarding';
  const root = rootWith(t, { 'etc/sysctl.d/1.conf': `${alias} = 0\n`, 'etc/sysctl.d/2.conf': on });
  t.is(decided(root, forward, alias), '/etc/sysctl.d/2.conf 1');
});
