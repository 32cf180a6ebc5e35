/**
 * `cni doctor`: rules of plugins in both variants of iptables.
 * Runs once: it starts agents itself.
 */

import { writeFileSync } from 'node:fs';
import ava from 'ava';
import { examine, hostLocal, network, scene, testFix } from '../support/doctor.ts';
import { iptablesSave, ping } from '../support/observe.ts';

/** One after the other: each starts many processes, and plugins that take too long are findings. */
const test = ava.serial;

test('rules of CNI plugins in the other variant of iptables', async (t) => {
  const { on } = await scene(t);
  const others = '-A FORWARD -s 203.0.113.0/24 -m comment --comment "allow -j CNI-test" -j ACCEPT';
  await on.sh(`iptables-legacy ${others}`);
  const fault =
    'iptables-legacy -t nat -N CNI-00aa; iptables-legacy -t nat -A CNI-00aa -j ACCEPT; ' +
    'iptables-legacy -t nat -A POSTROUTING -s 10.5.0.99 -j CNI-00aa; iptables-legacy -t nat -A POSTROUTING -s 10.9.0.1 -j ACCEPT';
  await testFix(t, on, fault, 'iptables-variant', { subject: /iptables-legacy$/, fixable: true });
  const left = await on.sh('iptables-legacy-save -t nat');
  t.notRegex(left, /CNI-/);
  t.true((await on.sh('iptables-legacy-save -t filter')).includes(others), 'a comment may mention them');
  t.is(left.match(/-s 10\.9\.0\.1\/32/g)?.length, 2, 'rules of others stay');
  t.true(
    (await iptablesSave(on.host)).some((line) => line.includes('CNI-')),
    'rules in use stay',
  );
});

test('rules of the other variant that belong to a running pod are not removed by --fix', async (t) => {
  const { on, pod } = await scene(t);
  const container = (
    JSON.parse((await on.tryCni(['list', '-o', 'json'])).stdout) as {
      attachments: { containerId: string; netns: string }[];
    }
  ).attachments.find(({ netns }) => netns === pod.netns)!.containerId;
  await on.sh(
    `iptables-legacy -t nat -N CNI-00aa; iptables-legacy -t nat -A POSTROUTING -s 10.5.0.2 -j CNI-00aa -m comment --comment ${container}`,
  );
  const { found, fixes } = await examine(on, ['--fix']);
  t.deepEqual(
    [found.map(({ rule, fixable }) => [rule, fixable]), fixes],
    [[['iptables-variant', false]], []],
  );
});

test('rules of "firewall" that name no container are not removed while a pod needs them, nor those of operators', async (t) => {
  const ipam = { ...hostLocal('10.8.0.0/24'), routes: [{ dst: '0.0.0.0/0' }] };
  const guarded = network('guarded', { type: 'ptp', ipam }, { type: 'firewall' });
  const { on, outside } = await scene(t, guarded);
  await outside.run(['ip', 'route', 'add', '10.8.0.0/24', 'via', '192.0.2.1']);
  await on.sh(
    'mkdir /run/legacy; cd /run/legacy; for p in iptables ip6tables; do for e in "" -save -restore; do ' +
      'ln -s "$(command -v $p-legacy$e)" $p$e; done; done; iptables-legacy -P FORWARD DROP',
  );
  const legacy = { PATH: `/run/legacy:${on.env.PATH}` };
  const pod = await on.attach('guarded', legacy);
  t.true(await ping(pod, '192.0.2.2'));
  const rules = () => on.sh('iptables-legacy-save -t filter | grep CNI-');
  const before = await rules();
  t.notRegex(before, /cnitool/);
  const { found, fixes } = await examine(on, ['--fix']);
  // CHECK also misses the rules in the current variant, which the rule "attachments" fixes.
  t.deepEqual(
    fixes.map(({ rule }) => rule),
    ['attachments'],
  );
  const { fix } = found.find(({ rule }) => rule === 'iptables-variant')!;
  t.regex(fix, new RegExp(`^Delete the pods that they are of, and add them again: ${pod.name}\\. Then: `));
  t.is(await rules(), before);
  t.true(await ping(pod, '192.0.2.2'));

  await on.cni(['del', 'guarded', pod.netns]);
  await on.sh('iptables-legacy -A CNI-ADMIN -d 203.0.113.0/24 -j DROP');
  const operators = (await examine(on, ['--fix'])).found[0]!;
  t.regex(
    operators.fix,
    /^Put your own rules of chain "CNI-ADMIN" in .*iptables-legacy -S CNI-ADMIN\. Then: /,
  );
  t.regex(await rules(), /^-A CNI-ADMIN -d 203\.0\.113\.0\/24 -j DROP$/m);
  await on.sh('iptables-legacy -F CNI-ADMIN');
  t.deepEqual(
    (await examine(on, ['--fix'])).fixes.map(({ fixed }) => fixed),
    [true],
  );
  t.notRegex(await on.sh('iptables-legacy-save'), /CNI-/);
});

test('a table that iptables cannot list is said, and its chain FORWARD is not taken for open', async (t) => {
  const { on, pod } = await scene(t);
  await on.sh('iptables -P FORWARD DROP; nft add rule ip filter FORWARD fib daddr type local counter accept');
  t.false(await ping(pod, '192.0.2.2'));
  const { found } = await examine(on);
  t.deepEqual(
    found.map(({ rule, subject }) => [rule, subject]),
    [
      ['forward-policy', 'network "net"'],
      ['iptables-variant', 'iptables-nft-save'],
    ],
  );
  t.regex(found[0]!.message, /^Chain FORWARD of iptables-nft \(nf_tables\) drops/);
  t.regex(found[1]!.message, /cannot be listed: Table `filter' is incompatible/);
  await on.sh(found[0]!.fix);
  t.true(await ping(pod, '192.0.2.2'));
  t.deepEqual(
    (await examine(on)).found.map(({ rule }) => rule),
    ['iptables-variant'],
  );
});

test('a firewall that iptables lists up to a rule of nft is not judged by what it has listed', async (t) => {
  const { on, pod } = await scene(t);
  const rule = 'nft add rule ip filter FORWARD meta cpu 65535 accept';
  await on.sh(
    `iptables -P FORWARD DROP; iptables -A FORWARD -i br0 -j ACCEPT; iptables -A FORWARD -o br0 -j ACCEPT; ${rule}`,
  );
  t.true(await ping(pod, '192.0.2.2'));
  const [listing, ...others] = (await examine(on)).found;
  t.deepEqual([listing!.rule, others], ['iptables-variant', []]);
  t.regex(
    listing!.message,
    /^The rules of iptables-nft cannot be listed: [\s\S]*Parsing nftables rule failed/,
  );
  t.regex(listing!.fix, /^Look at the rules with "nft -a list ruleset ip"/);

  await on.sh(
    `iptables -F FORWARD; iptables -P FORWARD ACCEPT; ${rule}; nft add rule ip filter FORWARD drop`,
  );
  t.false(await ping(pod, '192.0.2.2'));
  t.deepEqual(
    (await examine(on)).found.map((one) => one.rule),
    ['forward-policy', 'iptables-variant'],
  );
});

test('nft is blamed only for rules that iptables has no words for', async (t) => {
  const { on } = await scene(t);
  const fix = /^Run "iptables-(?:nft|legacy)-save", and fix what it says$/;
  for (const [variant, script, said] of [
    ['legacy', 'echo Broken >&2; exit 3', /cannot be listed: Broken$/],
    ['nft', 'exit 3', /cannot be listed: The program ended with 3, and said nothing$/],
    ['nft', 'kill -9 $$', /cannot be listed: A signal ended the program, and said nothing$/],
  ] as const) {
    const program = `/usr/sbin/xtables-${variant}-multi`;
    const fake = `#!/bin/sh
      case $0 in */iptables-${variant}-save) ${script};; esac
      exec /run/multi "\${0##*/}" "$@"`;
    writeFileSync(on.host.file('/run/fake'), fake, { mode: 0o755 });
    await on.sh(`cp ${program} /run/multi; mount --bind /run/fake ${program}`);
    const found = (await examine(on)).found.filter(({ rule }) => rule === 'iptables-variant');
    t.deepEqual(
      found.map(({ subject }) => subject),
      [`iptables-${variant}-save`],
    );
    t.regex(found[0]!.message, said);
    t.regex(found[0]!.fix, fix);
    await on.sh(`umount ${program}`);
  }
});

test('attachments whose rules cannot be looked at are neither missing from the count nor removed', async (t) => {
  const { on, pod } = await scene(t);
  await on.sh('nft add rule ip nat POSTROUTING fib daddr type local counter accept');
  const said = /^Warning: Rules of attachments cannot be looked at\. iptables-save cannot list table "nat"/m;
  const list = await on.tryCni(['list']);
  t.is(list.exit, 1, list.stdout);
  t.regex(list.stderr, said);
  t.true(
    (await examine(on)).found.some(({ rule, subject }) => rule === 'records' && subject === 'firewall rules'),
  );
  await pod.remove();
  const { exit, stdout, stderr } = await on.tryCni(['gc']);
  t.is(exit, 1, stdout + stderr);
  t.regex(stderr, said);
  t.regex(stdout, /^Still there: .*: rules for it may exist\. Rules of attachments cannot be looked at/m);
  t.notRegex(stdout, /^Removed/m);
});
