/** Runs once: no agent takes part. */

import { writeFileSync } from 'node:fs';
import test from 'ava';
import { answers, converse, serveLines } from '../support/connection.ts';
import { rulesOf } from '../support/firewall.ts';
import type { Host } from '../support/host.ts';
import { snapshot } from '../support/observe.ts';
import { operatorOf } from '../support/operator.ts';
import { outsideOf } from '../support/outside.ts';
import { cleanEnv } from '../support/run.ts';

const bridge = {
  type: 'bridge',
  bridge: 'br0',
  isDefaultGateway: true,
  ipMasq: true,
  hairpinMode: true,
  ipam: { type: 'host-local', ranges: [[{ subnet: '10.5.0.0/24' }], [{ subnet: 'fd00:5::/64' }]] },
};
const portmap = { type: 'portmap', capabilities: { portMappings: true } };

/** Everything on a host except its pods, and except hints that have rules by their handles. */
async function remains(host: Host): Promise<object> {
  const { sandboxes: _, files, ...rest } = await snapshot(host);
  const lasting = Object.entries(files as object).filter(([path]) => !path.startsWith('/run/cni/iptables/'));
  const { ruleset: __, ...network } = rest;
  return { ...network, files: lasting, rules: await rulesOf(host) };
}

/** The programs of the older variant of iptables, first in PATH. */
async function useLegacy(host: Host): Promise<void> {
  for (const name of ['iptables', 'ip6tables'])
    for (const suffix of ['', '-restore', '-save'])
      await host.run(['ln', '-s', '/usr/sbin/xtables-legacy-multi', `/run/legacy/${name}${suffix}`]);
}

/** The operator's own rules: forwarded packets are dropped, except to ports that are published. */
const dropping = [
  'sh',
  '-c',
  'for i in iptables ip6tables; do $i -P FORWARD DROP; $i -A FORWARD -m conntrack --ctstate DNAT -j ACCEPT; done',
];
const nftDropping = [
  'nft',
  'add table inet fw; add chain inet fw forward { type filter hook forward priority 0; policy drop; }; add rule inet fw forward ct status dnat accept',
];
const legacyPath = { PATH: `/run/legacy:${cleanEnv.PATH}` };
const flush = ['sh', '-c', 'for i in iptables ip6tables; do $i -F; $i -t nat -F; done'];
const nftables = [
  { ...bridge, ipMasqBackend: 'nftables' },
  { ...portmap, backend: 'nftables' },
  { type: 'firewall', backend: 'nftables' },
];
const iptables = [bridge, portmap, { type: 'firewall' }];

for (const { title, plugins, env, drop, lose } of [
  {
    title: 'iptables-nft, "iptables -F"',
    plugins: iptables,
    env: {},
    drop: dropping,
    lose: [flush, dropping],
  },
  {
    title: 'iptables-nft, "nft flush ruleset"',
    plugins: iptables,
    env: {},
    drop: dropping,
    lose: [['nft', 'flush', 'ruleset'], dropping],
  },
  { title: 'iptables-legacy', plugins: iptables, env: legacyPath, drop: dropping, lose: [flush, dropping] },
  {
    title: 'nftables',
    plugins: nftables,
    env: {},
    drop: nftDropping,
    lose: [['nft', 'flush', 'ruleset'], nftDropping],
  },
])
  test(`connections go on, and new ones pass again, once rules are repaired: ${title}`, async (t) => {
    const { host, cni, tryCni, add, del } = await operatorOf(t, plugins, { env });
    await host.run(['mkdir', '/run/legacy']);
    if (env === legacyPath) await useLegacy(host);
    const outside = await outsideOf(host);
    await host.run(drop, { env });
    await del(await add());
    const empty = await remains(host);

    const [pod, other] = [await add(8080), await add(8081)];
    for (const one of [pod, other]) await serveLines(t, one, 80);
    await serveLines(t, outside, 7000);
    const published = await converse(t, outside, '192.0.2.1', 8080);
    const published6 = await converse(t, outside, 'fd00:2::1', 8080);
    const masqueraded = await converse(t, pod, '192.0.2.2', 7000);
    t.is(await published('one'), '192.0.2.2 one');
    t.is(await published6('one'), 'fd00:2::2 one');
    t.is(await masqueraded('one'), '192.0.2.1 one');
    t.true(await answers(outside, '192.0.2.1', 8080));
    t.true(await answers(pod, '192.0.2.2', 7000));
    const before = await rulesOf(host, env);
    t.is((await tryCni(['repair', '--dry-run'])).exit, 0, 'nothing is missing');

    for (const command of lose) await host.run(command, { env });
    t.false(await answers(outside, '192.0.2.1', 8080, 3000));
    t.false(await answers(pod, '192.0.2.2', 7000, 3000));
    const lost = await rulesOf(host, env);
    t.notDeepEqual(lost, before);
    const planned = await tryCni(['repair', '--dry-run']);
    t.is(planned.exit, 1);
    t.regex(planned.stdout, /^Would restore: .*\n {2}/m);
    t.regex(planned.stdout, /2 attachments would be repaired, 0 intact\./);
    t.deepEqual(await rulesOf(host, env), lost, 'a dry run changes nothing');

    const repaired = await cni(['repair']);
    t.regex(repaired, /^Restored: /m);
    t.regex(repaired, /2 attachments repaired, 0 intact\./);
    t.deepEqual(await rulesOf(host, env), before);
    t.is(await published('two'), '192.0.2.2 two');
    t.is(await published6('two'), 'fd00:2::2 two');
    t.is(await masqueraded('two'), '192.0.2.1 two');
    for (const address of ['192.0.2.1', 'fd00:2::1'])
      for (const port of [8080, 8081]) t.true(await answers(outside, address, port));
    t.true(await answers(pod, '192.0.2.2', 7000));
    t.regex(await cni(['repair']), /^0 attachments repaired, 2 intact\.\n$/);
    t.deepEqual(await rulesOf(host, env), before);

    await del(pod, 8080);
    await del(other, 8081);
    t.deepEqual(await remains(host), empty, 'DEL leaves nothing');
  });

test('the delegate of flannel is repaired, also in a version that has no CHECK', async (t) => {
  const flannel = { type: 'flannel', delegate: { bridge: 'br0', isDefaultGateway: true } };
  const { host, cni, tryCni, add, del } = await operatorOf(t, [flannel, portmap], { cniVersion: '0.3.1' });
  const lines = ['NETWORK=10.5.0.0/16', 'SUBNET=10.5.1.1/24', 'MTU=1450', 'IPMASQ=false'];
  await host.run(['mkdir', '/run/flannel']);
  writeFileSync(host.file('/run/flannel/subnet.env'), lines.map((line) => `FLANNEL_${line}\n`).join(''));
  const pod = await add();
  const outside = await outsideOf(host);
  await serveLines(t, pod, 80);
  t.true(await answers(outside, '192.0.2.1', 8080));
  const before = await rulesOf(host);
  await host.run(['nft', 'flush', 'ruleset']);
  await host.run(['ip', 'address', 'flush', 'dev', 'br0']);
  t.false(await answers(outside, '192.0.2.1', 8080, 3000));
  t.is((await tryCni(['repair', '--dry-run'])).exit, 1);
  const repaired = await cni(['repair']);
  for (const what of ['address 10.5.1.1/24 of interface "br0"', 'of chain "POSTROUTING" in table "nat"'])
    t.true(repaired.includes(what), repaired);
  t.true(await answers(outside, '192.0.2.1', 8080));
  t.deepEqual(await rulesOf(host), before);
  t.regex(await cni(['repair']), /0 attachments repaired, 1 intact\./);
  await del(pod);
});

for (const [title, plugins, commands] of [
  [
    'iptables',
    iptables,
    [
      'chain=$(iptables -t nat -S | grep -o "^-N CNI-[0-9a-f]*$" | cut -c 4-); iptables -t nat -D $chain 1',
      'chain=$(iptables -t nat -S | grep -o "^-N CNI-DN-[0-9a-f]*$" | cut -c 4-); iptables -t nat -D $chain 1',
      'iptables -t nat -F CNI-HOSTPORT-SETMARK',
      'iptables -D CNI-FORWARD 3; ip6tables -D CNI-FORWARD 3',
    ],
  ],
  [
    'nftables',
    nftables,
    [
      'nft -a list chain inet cni_plugins_masquerade masq_checks | sed -n "s/.*ip6.*# handle/delete rule inet cni_plugins_masquerade masq_checks handle/p" | nft -f -',
      'nft flush chain ip cni_hostport masquerading',
      'nft flush chain ip6 cni_hostport hostports_all',
      'nft flush set inet fw cni_forward_ipv4',
    ],
  ],
] as const)
  test(`single rules that are lost come back where they were: ${title}`, async (t) => {
    const { host, cni, add, del } = await operatorOf(t, plugins);
    await host.run(nftDropping);
    const pod = await add();
    const before = await rulesOf(host);
    for (const command of commands) {
      await host.run(['sh', '-c', command]);
      t.notDeepEqual(await rulesOf(host), before, command);
      t.regex(await cni(['repair']), /1 attachment repaired, 0 intact\./, command);
      t.deepEqual(await rulesOf(host), before, command);
    }
    await del(pod);
  });
