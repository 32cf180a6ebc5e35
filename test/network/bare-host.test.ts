/**
 * A host that has nothing but the installed tree: no C library, no iptables, no nft, no shell.
 * Runs once: no agent takes part.
 */

import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { type Host, makeHost, type Pod } from '../support/host.ts';
import { addresses, link, nftJson, ping } from '../support/observe.ts';
import { type PrintedResult, suites, type Verb } from '../support/plugin.ts';

const config = {
  cniVersion: '1.1.0',
  name: 'bare',
  type: 'bridge',
  bridge: 'br0',
  isGateway: true,
  ipMasq: true,
  ipMasqBackend: 'nftables',
  ipam: { type: 'host-local', subnet: '10.32.0.0/24', routes: [{ dst: '0.0.0.0/0' }] },
};

/** A root directory on a file system of its own, with the tree in /opt/cni/bin and what the kernel offers. */
async function makeRoot(host: Host): Promise<string> {
  const root = '/run/root';
  await host.run(['mkdir', root]);
  await host.run(['mount', '-t', 'tmpfs', '-o', 'size=512m', 'tmpfs', root]);
  mkdirSync(host.file(`${root}/opt/cni`), { recursive: true });
  cpSync(suites.ours, host.file(`${root}/opt/cni/bin`), { recursive: true });
  for (const directory of ['proc', 'run/netns', 'var'])
    mkdirSync(host.file(`${root}/${directory}`), { recursive: true });
  await host.run(['mount', '-t', 'proc', 'proc', `${root}/proc`]);
  await host.run(['mount', '--rbind', '/run/netns', `${root}/run/netns`]);
  return root;
}

async function call(host: Host, root: string, name: string, verb: Verb, pod: Pod, stdin: object) {
  return await host.tryRun(['chroot', root, `/opt/cni/bin/${name}`], {
    env: {
      CNI_COMMAND: verb,
      CNI_CONTAINERID: pod.containerId,
      CNI_NETNS: pod.netns,
      CNI_IFNAME: 'eth0',
      CNI_PATH: '/opt/cni/bin',
    },
    stdin: JSON.stringify(stdin),
  });
}

async function masquerades(host: Host): Promise<boolean> {
  return (await nftJson(host)).some(({ rule }) => JSON.stringify(rule?.expr ?? []).includes('masquerade'));
}

async function life(
  t: ExecutionContext,
  spoil: (root: string, host: Host) => void = () => {},
): Promise<void> {
  const host = await makeHost(t);
  const pod = await host.addPod();
  const root = await makeRoot(host);
  spoil(root, host);
  const added = await call(host, root, 'bridge', 'ADD', pod, config);
  t.is(added.exit, 0, added.stdout + added.stderr);
  const prevResult = JSON.parse(added.stdout) as PrintedResult;
  t.deepEqual(await addresses(pod, 'eth0'), [prevResult.ips![0]!.address]);
  t.true(await ping(pod, '10.32.0.1'));
  t.true(await masquerades(host));
  for (const verb of ['CHECK', 'DEL', 'DEL'] as const) {
    const { exit, stdout } = await call(host, root, 'bridge', verb, pod, { ...config, prevResult });
    t.is(exit, 0, stdout);
  }
  t.is(await link(pod, 'eth0'), undefined);
  t.false(await masquerades(host));
  t.deepEqual(
    readdirSync(host.file(`${root}/var/lib/cni/networks/bare`)).filter((name) => name.startsWith('10.')),
    [],
  );
}

test('the installed tree is all that a pod needs', (t) => life(t));

test('names that were copied, not linked, are known as the same suite', async (t) => {
  await life(t, (root, host) => {
    for (const name of ['bridge', 'host-local']) {
      const file = host.file(join(root, 'opt/cni/bin', name));
      const copy = `${file}.copy`;
      cpSync(file, copy);
      rmSync(file);
      cpSync(copy, file);
    }
  });
});

/** Makes a library that needs a newer C library than there is. @returns its path. */
function makeFutureLibrary(t: ExecutionContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'cni-preload-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const compile = (name: string, source: string, ...options: string[]) => {
    const file = join(directory, name);
    writeFileSync(`${file}.c`, source);
    execFileSync('gcc', ['-shared', '-fPIC', '-nostdlib', '-o', file, `${file}.c`, ...options]);
    return file;
  };
  const versions = join(directory, 'versions');
  writeFileSync(versions, 'GLIBC_2.99 { global: later; };');
  const soname = ['-Wl,-soname,libc.so.6', `-Wl,--version-script=${versions}`];
  const libc = compile('libc.so.6', 'void later(void) {}', ...soname);
  return compile('future.so', 'void later(void); void now(void) { later(); }', libc);
}

test('what the host preloads into its own programs is not loaded', async (t) => {
  const library = makeFutureLibrary(t);
  await life(t, (root, host) => {
    mkdirSync(host.file(`${root}/etc`));
    cpSync(library, host.file(`${root}/future.so`));
    writeFileSync(host.file(`${root}/etc/ld.so.preload`), '/future.so\n');
  });
});

test('a plugin without its private directory says so, and does nothing', async (t) => {
  const host = await makeHost(t);
  const pod = await host.addPod();
  const root = await makeRoot(host);
  const bin = host.file(`${root}/opt/cni/bin`);
  for (const entry of readdirSync(bin))
    if (entry.startsWith('.')) rmSync(join(bin, entry), { recursive: true });
  const { exit, stdout } = await call(host, root, 'bridge', 'ADD', pod, config);
  t.is(exit, 1);
  t.like(JSON.parse(stdout), { code: 999 });
  t.regex(JSON.parse(stdout).msg, /Install the suite again/);
  t.is(await link(host, 'br0'), undefined);
});
