/**
 * Hosts on which ADD of a chain cannot succeed: it answers with a CNI error, has undone what it did, and spares
 * the living attachment. Once the host is mended, DEL of the plugins that had succeeded leaves nothing.
 */

import test from 'ava';
import { answerProblem } from './answers.ts';
import { cleanUp } from './kills.ts';
import { Scene } from './scene.ts';
import { subjects } from './subjects.ts';

/** What is wrong with a host: which chain it is, how the host is broken, and how it is mended. */
interface Broken {
  readonly subject: string;
  readonly breaks: string;
  readonly mends: string;
}

const empty = (target: string) => `mkdir -p /run/empty && mount --bind /run/empty ${target}`;

/** Puts other programs behind the names of iptables, except for those that only look. */
const replaced = (script: string) => `mkdir -p /run/alternatives
  cp -a /etc/alternatives/*tables-save /run/alternatives
  for name in iptables ip6tables iptables-restore ip6tables-restore; do ${script}; done
  mount --bind /run/alternatives /etc/alternatives`;

const hosts: Readonly<Record<string, Broken>> = {
  'without iptables': {
    subject: 'iptables',
    breaks: replaced(':'),
    mends: 'umount /etc/alternatives',
  },
  'whose iptables fails': {
    subject: 'iptables',
    breaks: replaced('ln -sf /bin/false /run/alternatives/$name'),
    mends: 'umount /etc/alternatives',
  },
  'whose iptables is killed': {
    subject: 'iptables',
    breaks: replaced(
      `printf '#!/bin/sh\\nkill -9 $$\\n' > /run/alternatives/$name; chmod +x /run/alternatives/$name`,
    ),
    mends: 'umount /etc/alternatives',
  },
  'with a read-only directory of reservations': {
    subject: 'iptables',
    breaks: 'mount --bind /var/lib/cni /var/lib/cni && mount -o remount,ro,bind /var/lib/cni',
    mends: 'umount /var/lib/cni',
  },
  'with a full directory of reservations': {
    subject: 'iptables',
    breaks: `mkdir -p /run/kept && cp -a /var/lib/cni/. /run/kept
      mount -t tmpfs -o size=64k tmpfs /var/lib/cni && cp -a /run/kept/. /var/lib/cni
      cat /dev/zero > /var/lib/cni/filler || true`,
    mends: 'umount /var/lib/cni',
  },
  'with a read-only directory of claims': {
    subject: 'nftables',
    breaks: 'mount --bind /run/cni/firewall /run/cni/firewall && mount -o remount,ro,bind /run/cni/firewall',
    mends: 'umount /run/cni/firewall',
  },
  'with a read-only directory of backups': {
    subject: 'iptables',
    breaks: 'mount --bind /run/cni/tuning /run/cni/tuning && mount -o remount,ro,bind /run/cni/tuning',
    mends: 'umount /run/cni/tuning',
  },
  'without the configuration of flanneld': {
    subject: 'flannel',
    breaks: empty('/run/flannel'),
    mends: 'umount /run/flannel',
  },
};

for (const [what, { subject, breaks, mends }] of Object.entries(hosts))
  test(`a host ${what}: ADD fails and has done nothing`, async (t) => {
    const scene = await Scene.open(subjects[subject]!, { hasNeighbour: true, hasAgent: false });
    t.teardown(() => scene.close());
    const attachment = await scene.attachment();
    await scene.host.run(['sh', '-c', breaks]);
    let hasFailed = false;
    for (const index of scene.subject.network.plugins.keys()) {
      const before = await scene.picture(attachment.pod);
      const outcome = await scene.run('ADD', index, attachment);
      if (outcome.exit === 0) {
        attachment.result = outcome.result;
        continue;
      }
      hasFailed = true;
      t.is(answerProblem(outcome), '');
      t.is(await scene.differenceFrom(before, attachment.pod), '');
      break;
    }
    t.true(hasFailed);
    await scene.host.run(['sh', '-c', mends]);
    t.is(await cleanUp(scene, attachment, 'del'), '');
    t.is(await scene.difference(), '');
  });

test('a host whose lock is held for ever: ADD that needs it fails in time, and has done nothing', async (t) => {
  const scene = await Scene.open(subjects.iptables!, { hasNeighbour: true, hasAgent: false });
  t.teardown(() => scene.close());
  const attachment = await scene.attachment();
  attachment.result = (await scene.run('ADD', 0, attachment)).result;
  // The shared rules have to be put in order, which only one may do at a time.
  await scene.host.run(['iptables', '-t', 'nat', '-F', 'PREROUTING']);
  const before = await scene.picture(attachment.pod);
  await scene.host.start(t, [
    ...['flock', '/run/cni/iptables.lock', 'sh', '-c', 'echo held; exec cat > /dev/null'],
  ]);
  const { error } = await scene.run('ADD', 1, attachment);
  t.is(error?.code, 11);
  t.is(await scene.differenceFrom(before, attachment.pod), '');
});
