/**
 * Hosts on which something is broken whenever a plugin is called: it answers with a CNI error of the right
 * code and spares the living attachment. A failed ADD has undone what it did, CHECK changes nothing, and DEL
 * and GC that succeed leave nothing, as nobody repeats them.
 */

import test from 'ava';
import { ErrorCode } from '../../lib/errors.ts';
import type { Attachment } from '../support/chain.ts';
import { succeeded, type Verb } from '../support/plugin.ts';
import { answerProblem } from './answers.ts';
import { Scene } from './scene.ts';
import { type Subject, subjects } from './subjects.ts';

/** A broken host: the chain on it, how it is broken, and how it is repaired. */
interface Broken {
  readonly subject: Subject;
  /** May be done again after {@link mends}. */
  readonly breaks: string;
  readonly mends: string;
  /** The plugins whose ADD cannot succeed there. */
  readonly fails: readonly string[];
  /** The code of their errors. */
  readonly code: number;
  /** The verb that later removes what DEL and GC may leave on such a host, where they have to succeed. */
  readonly finishes?: 'DEL' | 'GC';
}

const empty = (target: string) => `mkdir -p /run/empty && mount --bind /run/empty ${target}`;
const readOnly = (target: string) => `mount --bind ${target} ${target} && mount -o remount,ro,bind ${target}`;

/** Replaces the programs of iptables, except for those that only read. */
const replaced = (script: string, names = 'iptables ip6tables iptables-restore ip6tables-restore') => `
  rm -rf /run/alternatives /run/calls && mkdir -p /run/alternatives /run/calls
  cp -a /etc/alternatives/*tables* /run/alternatives
  for name in ${names}; do mv /run/alternatives/$name /run/calls/$name.real; ${script}; done
  mount --bind /run/alternatives /etc/alternatives`;

/** Makes the n-th call of any iptables program fail. */
const failsOnce = (nth: number) =>
  replaced(`printf '%s\\n' '#!/bin/sh' 'n=1; until mkdir /run/calls/$n 2> /dev/null; do n=$((n + 1)); done' \\
    '[ $n = ${nth} ] && exit 1' 'exec -a '$name' /run/calls/'$name'.real "$@"' > /run/alternatives/$name
    sed -i 's#/bin/sh#/bin/bash#' /run/alternatives/$name; chmod +x /run/alternatives/$name`);

const { iptables, nftables, flannel } = subjects as Record<'iptables' | 'nftables' | 'flannel', Subject>;
const ofIptables = ['bridge', 'portmap', 'firewall'];

const withoutIptables = {
  subject: {
    ...iptables,
    network: {
      ...iptables.network,
      plugins: iptables.network.plugins.filter(({ type }) => ofIptables.includes(type)),
    },
  },
  mends: 'umount /etc/alternatives',
  fails: ofIptables,
  code: ErrorCode.Internal,
};

const hosts: Readonly<Record<string, Broken>> = {
  'without iptables': { ...withoutIptables, breaks: replaced(':'), finishes: 'DEL' },
  'whose iptables fails': {
    ...withoutIptables,
    breaks: replaced('ln -sf /bin/false /run/alternatives/$name'),
  },
  'whose iptables fails for IPv6': {
    ...withoutIptables,
    breaks: replaced('ln -sf /bin/false /run/alternatives/$name', 'ip6tables ip6tables-restore'),
  },
  'whose iptables fails when it is called for the second time': {
    ...withoutIptables,
    breaks: failsOnce(2),
    fails: [],
  },
  'with a read-only directory of reservations': {
    subject: iptables,
    breaks: readOnly('/var/lib/cni'),
    mends: 'umount /var/lib/cni',
    fails: ['bridge'],
    code: ErrorCode.IOFailure,
    finishes: 'GC',
  },
  'with a full directory of reservations': {
    subject: iptables,
    breaks: `rm -rf /run/kept && mkdir -p /run/kept && cp -a /var/lib/cni/. /run/kept
      mount -t tmpfs -o size=64k tmpfs /var/lib/cni && cp -a /run/kept/. /var/lib/cni
      cat /dev/zero > /var/lib/cni/filler || true`,
    // What plugins have changed meanwhile is kept.
    mends: `rm -r /var/lib/cni/filler /run/kept && cp -a /var/lib/cni /run/kept && umount /var/lib/cni
      find /var/lib/cni -mindepth 1 -delete && cp -a /run/kept/. /var/lib/cni`,
    fails: ['bridge'],
    code: ErrorCode.IOFailure,
  },
  'with a read-only directory of claims': {
    subject: nftables,
    breaks: readOnly('/run/cni/firewall'),
    mends: 'umount /run/cni/firewall',
    fails: ['firewall'],
    code: ErrorCode.IOFailure,
    finishes: 'GC',
  },
  'with a read-only directory of backups': {
    subject: iptables,
    breaks: readOnly('/run/cni/tuning'),
    mends: 'umount /run/cni/tuning',
    fails: ['tuning'],
    code: ErrorCode.IOFailure,
    finishes: 'GC',
  },
  'without the configuration of flanneld': {
    subject: flannel,
    breaks: empty('/run/flannel'),
    mends: 'umount /run/flannel',
    fails: ['flannel'],
    code: ErrorCode.Internal,
  },
};

for (const [what, { subject, breaks, mends, fails, code, finishes }] of Object.entries(hosts))
  test(`a host ${what}: each plugin does what it can, or fails and has done nothing`, async (t) => {
    const scene = await Scene.open(subject, { hasNeighbour: true });
    t.teardown(() => scene.close());
    const attachment = await scene.attachment();
    const { plugins } = scene.subject.network;
    /** Runs a verb on the broken host, without the agent, which is there to make everything else quicker. */
    const attempt = async (verb: Verb, index: number) => {
      await scene.host.run(['sh', '-c', breaks]);
      scene.useAgent(false);
      const outcome = await scene.run(verb, index, attachment);
      scene.useAgent(true);
      await scene.host.run(['sh', '-c', mends]);
      const { type } = plugins[index]!;
      t.is(answerProblem({ ...outcome, verb }, [code]), '', `${verb} of ${type}`);
      return outcome;
    };

    /** Ends an attachment. @returns what is left of it. */
    const clean = async (one: Attachment) => {
      if (finishes === 'DEL') succeeded(await one.tryDel());
      await scene.remove(one.pod);
      if (finishes === 'GC') succeeded(await scene.collect());
      return await scene.difference();
    };

    const failed = [];
    for (const [index, { type }] of plugins.entries()) {
      const before = await scene.picture(attachment.pod);
      let outcome = await attempt('ADD', index);
      if (outcome.exit !== 0) {
        failed.push(type);
        t.is(await scene.differenceFrom(before, attachment.pod), '', `ADD of ${type}`);
        outcome = succeeded(await scene.run('ADD', index, attachment));
      }
      attachment.result = outcome.result;
    }
    if (fails.length > 0) t.deepEqual(failed, fails);

    const living = await scene.picture(attachment.pod);
    for (const index of plugins.keys()) await attempt('CHECK', index);
    t.is(await scene.differenceFrom(living, attachment.pod), '', 'CHECK');
    // Nobody repeats a call that has succeeded.
    for (const index of [...plugins.keys()].reverse())
      if ((await attempt('DEL', index)).exit !== 0) succeeded(await scene.run('DEL', index, attachment));
    t.is(await clean(attachment), '', 'DEL');

    const stale = await scene.attachment();
    await stale.add();
    await scene.removeWholly(stale.pod);
    for (const index of plugins.keys())
      if ((await attempt('GC', index)).exit !== 0) succeeded(await scene.run('GC', index, attachment));
    t.is(await clean(stale), '', 'GC');
  });

test('a host whose lock is held for ever: ADD that needs it fails in time, and has done nothing', async (t) => {
  const scene = await Scene.open(iptables, { hasNeighbour: true, hasAgent: false });
  t.teardown(() => scene.close());
  const attachment = await scene.attachment();
  attachment.result = (await scene.run('ADD', 0, attachment)).result;
  // The shared rules have to be repaired, which takes the lock.
  await scene.host.run(['iptables', '-t', 'nat', '-F', 'PREROUTING']);
  const before = await scene.picture(attachment.pod);
  await scene.host.start(t, [
    ...['flock', '/run/cni/iptables.lock', 'sh', '-c', 'echo held; exec cat > /dev/null'],
  ]);
  const { error } = await scene.run('ADD', 1, attachment);
  t.is(error?.code, 11);
  t.is(await scene.differenceFrom(before, attachment.pod), '');
});
