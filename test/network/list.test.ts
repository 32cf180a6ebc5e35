/** Runs once: no agent takes part. */

import { chmodSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import test, { type ExecutionContext } from 'ava';
import { load } from 'js-yaml';
import { sample } from '../support/chain.ts';
import { command } from '../support/command.ts';
import { makeHost, type Pod } from '../support/host.ts';
import { until } from '../support/observe.ts';
import { operatorOf } from '../support/operator.ts';
import { suites } from '../support/plugin.ts';

const bridge = { ...sample('10-bridge.conflist'), cniVersion: '1.1.0' };

interface Listed {
  attachments: {
    network: string;
    containerId: string;
    pod?: { namespace: string; name: string };
    ips: string[];
    state: string;
    problems: string[];
    foundBy?: string;
  }[];
  ranges: { network: string; used: number; free: number }[];
  problems: string[];
}

/** A host with networks, and what it takes to run the command on it. */
async function hostWith(t: ExecutionContext, ...networks: { name: string; [key: string]: unknown }[]) {
  const host = await makeHost(t);
  for (const network of networks)
    writeFileSync(host.file(`/etc/cni/net.d/${network.name}.conflist`), JSON.stringify(network));
  const run = (args: string[], env: NodeJS.ProcessEnv = {}) =>
    host.tryRun([command, ...args], { env: { CNI_PATH: suites.ours, ...env } });
  const add = async (network: string, name: string, env: NodeJS.ProcessEnv = {}): Promise<Pod> => {
    const pod = await host.addPod();
    const [namespace, podName] = name.split('/');
    const named = podName ? `K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${podName}` : `K8S_POD_NAME=${name}`;
    const added = await run(['add', network, pod.netns], { CNI_ARGS: `IgnoreUnknown=1;${named}`, ...env });
    if (added.exit !== 0) throw new Error(added.stderr);
    return pod;
  };
  const listed = async (...args: string[]) =>
    JSON.parse((await run(['list', '-o', 'json', ...args])).stdout) as Listed;
  /** The state of the only attachment. */
  const state = async (env?: NodeJS.ProcessEnv) => {
    const { attachments } = JSON.parse((await run(['list', '-o', 'json'], env)).stdout) as Listed;
    t.is(attachments.length, 1);
    const { state, problems } = attachments[0]!;
    return { state, problems };
  };
  return { host, run, add, listed, state };
}

const port = (hostPort: number) => ({
  CAP_ARGS: JSON.stringify({ portMappings: [{ hostPort, containerPort: 80, protocol: 'tcp' }] }),
});

test('the state is looked at: what is broken behind the plugins’ back is shown, and what is mended is ok', async (t) => {
  const { host, run, add, state } = await hostWith(t, bridge);
  const pod = await add('podnet', 'default/web', port(8080));
  t.deepEqual(await state(), { state: 'ok', problems: [] });
  t.is((await run(['list'])).exit, 0);
  const rules = await host.run(['iptables-save']);
  const restore = () => host.run(['iptables-restore'], { stdin: rules });
  const faults: [RegExp, string[], () => Promise<unknown>][] = [
    [
      /"eth0" is down/,
      ['ip', '-n', pod.name, 'link', 'set', 'eth0', 'down'],
      async () => {
        await pod.run(['ip', 'link', 'set', 'eth0', 'up']);
        await pod.run(['ip', 'route', 'add', 'default', 'via', '10.88.0.1']);
      },
    ],
    [/not masqueraded.*"POSTROUTING"/, ['iptables', '-t', 'nat', '-F', 'POSTROUTING'], restore],
    [
      /not masqueraded.*"CNI-[0-9a-f]*"/,
      ['sh', '-c', "iptables -t nat -F $(iptables -t nat -S | sed -n 's/^-N \\(CNI-[0-9a-f]*\\)$/\\1/p')"],
      restore,
    ],
    [
      /Ports of the host do not lead.*"CNI-HOSTPORT-DNAT"/,
      ['iptables', '-t', 'nat', '-F', 'CNI-HOSTPORT-DNAT'],
      restore,
    ],
    [/Ports of the host do not lead.*"PREROUTING"/, ['iptables', '-t', 'nat', '-F', 'PREROUTING'], restore],
    [
      /reserved/,
      ['mv', '/var/lib/cni/networks/podnet', '/run/kept'],
      () => host.run(['mv', '/run/kept', '/var/lib/cni/networks/podnet']),
    ],
  ];
  for (const [problem, fault, mend] of faults) {
    await host.run(fault);
    const { state: seen, problems } = await state();
    t.is(seen, 'broken', fault.join(' '));
    t.regex(problems.join(), problem);
    const { exit, stdout } = await run(['list']);
    t.is(exit, 1);
    t.regex(stdout, /default\/web .*broken: .*\n\n1 attachment, 1 broken\./);
    await mend();
  }
  await pod.run(['ip', 'addr', 'flush', 'dev', 'eth0']);
  t.regex((await state()).problems.join(), /10\.88\.0\.2/);
  await pod.run(['ip', 'link', 'del', 'eth0']);
  t.regex((await state()).problems.join(), /eth0/);
  await pod.remove();
  t.deepEqual(await state(), { state: 'orphaned', problems: ['its network namespace is gone'] });
});

test('rules of the filter table are looked at, IPv6 and nftables too', async (t) => {
  const chain = (name: string, backend: string) => ({
    cniVersion: '1.1.0',
    name,
    plugins: [
      {
        ...{ type: 'bridge', bridge: `br-${name}`, isGateway: true, ipMasq: true, ipMasqBackend: backend },
        ipam: { type: 'host-local', ranges: [[{ subnet: '10.9.0.0/24' }], [{ subnet: 'fd09::/64' }]] },
      },
      { type: 'firewall', backend },
    ],
  });
  for (const [backend, fault] of [
    ['iptables', ['ip6tables', '-F', 'CNI-FORWARD']],
    ['nftables', ['nft', 'flush', 'chain', 'inet', 'cni_plugins_masquerade', 'masq_checks']],
  ] as const) {
    const { host, add, state } = await hostWith(t, chain('dual', backend));
    await add('dual', 'web');
    t.deepEqual(await state(), { state: 'ok', problems: [] }, backend);
    await host.run(fault);
    t.is((await state()).state, 'broken', fault.join(' '));
  }
});

test('the list has names, and is filtered by network, pod and state', async (t) => {
  const ptp = { ...sample('20-ptp.conflist'), cniVersion: '1.1.0' };
  const { run, add, listed } = await hostWith(t, bridge, ptp);
  await add('podnet', 'default/web-1', port(8081));
  const down = await add('podnet', 'kube-system/dns');
  await add(ptp.name, 'db');
  await down.run(['ip', 'link', 'set', 'eth0', 'down']);
  const names = async (...args: string[]) =>
    (await run(['list', '-o', 'name', ...args])).stdout.trim().split('\n');
  t.deepEqual(await names(), ['db', 'default/web-1', 'kube-system/dns']);
  t.deepEqual(await names('--network', 'podnet'), ['default/web-1', 'kube-system/dns']);
  t.deepEqual(await names('--pod', 'web-1', '--pod', 'db'), ['db', 'default/web-1']);
  t.deepEqual(await names('--state', 'broken'), ['kube-system/dns']);
  t.deepEqual(await names('--network', ptp.name, '--state', 'broken'), ['']);
  t.regex((await run(['list', '--pod', 'db'])).stdout, /1 of 3 attachments, all ok\./);
  t.deepEqual(await names('--pod', 'cnitool-'), ['db', 'default/web-1', 'kube-system/dns'], 'of IDs');
  t.deepEqual(await names('--pod', 'cni'), [''], 'too short for an ID');
  t.deepEqual(await names('--pod', ''), ['']);
  t.deepEqual(await names('--orphaned', '--state', 'broken'), ['kube-system/dns']);
  const unknown = await run(['list', '--network', 'nope']);
  t.is(unknown.exit, 1);
  t.regex(unknown.stderr, /No network is called "nope"/);
  t.is((await run(['list', '--state', 'fine'])).exit, 2);

  const json = await listed();
  t.deepEqual(load((await run(['list', '-o', 'yaml'])).stdout), JSON.parse(JSON.stringify(json)));
  t.deepEqual(JSON.parse((await run(['list', '-o', 'json'])).stdout), JSON.parse(JSON.stringify(json)));
  // Other commands have the same names for the same things.
  const inspected = JSON.parse((await run(['network', 'inspect', 'podnet'])).stdout) as [Listed];
  t.deepEqual(
    inspected[0].ranges,
    json.ranges.filter(({ network }) => network === 'podnet'),
  );
  t.deepEqual(
    inspected[0].attachments.map(({ containerId }) => containerId).sort(),
    json.attachments.flatMap(({ network, containerId }) => (network === 'podnet' ? containerId : [])).sort(),
  );
  for (const one of inspected[0].attachments) {
    const { state, problems, foundBy, ...same } = json.attachments.find(
      ({ containerId, network }) => containerId === one.containerId && network === 'podnet',
    )!;
    t.deepEqual([typeof state, Array.isArray(problems), same], ['string', true, one]);
  }
  const { containerId } = json.attachments.find(({ pod }) => pod?.name === 'web-1')!;
  t.deepEqual(await names('--pod', containerId.slice(0, 20)), ['default/web-1']);
  const table = (await run(['list'])).stdout;
  t.regex(table, /^NAME +CONTAINER +NETWORK +INTERFACE +ADDRESSES +PORTS +AGE +STATE\n/);
  t.false(table.includes(containerId));
  t.regex(table, /default\/web-1 +cnitool-\w+ +podnet +eth0 +10\.88\.0\.2 +8081:80\/tcp +\d+[sm] +ok/);
  const wide = (await run(['list', '-o', 'wide'])).stdout;
  t.regex(wide, new RegExp(`${containerId} .*/run/netns/pod-\\w+ +cni0 veth\\w+ +ok`));
});

test('the loopback network of a runtime is nobody’s attachment, unless it is left over', async (t) => {
  const { host, run, add, listed } = await hostWith(t, bridge);
  const [web, db] = [await add('podnet', 'default/web'), await add('podnet', 'default/db')];
  // As containerd and CRI-O have it, in no file.
  const config = JSON.stringify({
    cniVersion: '0.3.1',
    name: 'cni-loopback',
    plugins: [{ type: 'loopback' }],
  });
  const result = {
    cniVersion: '0.3.1',
    interfaces: [{ name: 'lo', mac: '00:00:00:00:00:00', sandbox: '' }],
    ips: [{ version: '4', address: '127.0.0.1/8', interface: 0 }],
  };
  for (const [name, pod] of Object.entries({ web, db }))
    writeFileSync(
      host.file(`/var/lib/cni/results/cni-loopback-${name}-lo`),
      JSON.stringify({
        kind: 'cniCacheV1',
        containerId: name,
        config: Buffer.from(config).toString('base64'),
        ifName: 'lo',
        networkName: 'cni-loopback',
        netns: pod.netns,
        cniArgs: [
          ['K8S_POD_NAMESPACE', 'default'],
          ['K8S_POD_NAME', name],
        ],
        result: { ...result, interfaces: [{ ...result.interfaces[0], sandbox: pod.netns }] },
      }),
    );
  t.deepEqual(
    (await listed()).attachments.map(({ network, state }) => [network, state]),
    [
      ['podnet', 'ok'],
      ['podnet', 'ok'],
    ],
  );
  const { findings } = (
    JSON.parse((await run(['doctor', '-o', 'json'])).stdout) as {
      checks: { id: string; findings: object[] }[];
    }
  ).checks.find(({ id }) => id === 'records')!;
  t.deepEqual(findings, []);
  for (const args of [
    ['network', 'ls'],
    ['draw'],
    ['gc', '--dry-run'],
    ['probe', 'default/web', '--dns', '10.88.0.1'],
    ['gc'],
  ]) {
    const { exit, stdout, stderr } = await run(args);
    t.notRegex(stdout + stderr, /loopback|127\.0\.0\.1/, args.join(' '));
    if (args[0] !== 'probe') t.is(exit, 0, `${args.join(' ')}\n${stdout}${stderr}`);
  }
  t.notRegex((await run(['--complete', 'gc', ''])).stdout, /loopback/);
  t.is((await listed()).attachments.length, 2);

  await db.remove();
  const collected = await run(['gc', 'cni-loopback']);
  t.deepEqual([collected.exit, collected.stderr], [0, ''], collected.stdout);
  t.regex(collected.stdout, /^Removed default\/db db lo/m);
  t.regex(collected.stdout, /1 attachment removed, 0 kept/);
  t.regex(await host.run(['ls', '/var/lib/cni/results']), /cni-loopback-web-lo/);
});

test('what CHECK cannot tell is unchecked, but the interface is looked at', async (t) => {
  const old = { ...bridge, cniVersion: '0.3.1', plugins: bridge.plugins.slice(0, 1) };
  const { add, state } = await hostWith(t, old);
  const pod = await add('podnet', 'old');
  t.deepEqual(await state(), { state: 'unchecked', problems: ['cniVersion "0.3.1" has no CHECK'] });
  await pod.run(['ip', 'addr', 'flush', 'dev', 'eth0']);
  t.deepEqual(await state(), { state: 'broken', problems: ['interface "eth0" has no address 10.88.0.2'] });
  await pod.run(['ip', 'link', 'set', 'eth0', 'down']);
  t.regex((await state()).problems.join(), /"eth0" is down/);
  await pod.run(['ip', 'link', 'del', 'eth0']);
  t.deepEqual(await state(), {
    state: 'broken',
    problems: ['interface "eth0" is missing from the container'],
  });
});

test('plugins of others are run as executables; one that is missing or hangs leaves the rest to be seen', async (t) => {
  const { host, run, add, state } = await hostWith(t, { ...bridge, plugins: bridge.plugins.slice(0, 1) });
  const pod = await add('podnet', 'web');
  mkdirSync(host.file('/run/bin'));
  const foreign = (script: string) => {
    writeFileSync(host.file('/run/bin/bridge'), `#!/bin/sh\n${script}\n`);
    chmodSync(host.file('/run/bin/bridge'), 0o755);
    return state({ CNI_PATH: '/run/bin' });
  };
  t.deepEqual(await foreign('echo $CNI_COMMAND $CNI_CONTAINERID >> /run/asked'), {
    state: 'ok',
    problems: [],
  });
  t.regex(await host.run(['cat', '/run/asked']), /^CHECK cnitool-\w+\n$/);
  const refused = await foreign(`echo '{"code": 100, "msg": "its own reason"}'; exit 1`);
  t.is(refused.state, 'broken');
  t.regex(refused.problems.join(), /its own reason/);
  const missing = await state({ CNI_PATH: '/run/nowhere' });
  t.is(missing.state, 'unchecked');
  t.regex(missing.problems.join(), /"bridge" is not in CNI_PATH/);
  const hung = await foreign('sleep 1000');
  t.is(hung.state, 'unchecked');
  t.regex(hung.problems.join(), /did not answer within 10 seconds/);
  await pod.run(['ip', 'link', 'set', 'eth0', 'down']);
  t.is((await state({ CNI_PATH: '/run/nowhere' })).state, 'broken');
  t.is((await run(['list'], { CNI_PATH: '/run/nowhere' })).exit, 1);
  t.deepEqual(await foreign('exit 0'), { state: 'broken', problems: ['interface "eth0" is down'] });
  await pod.run(['ip', 'addr', 'flush', 'dev', 'eth0']);
  await pod.run(['ip', 'link', 'set', 'eth0', 'up']);
  t.deepEqual((await foreign('exit 0')).problems, ['interface "eth0" has no address 10.88.0.2']);
});

test('what is deleted while it is looked at is left out, and not called broken', async (t) => {
  const { host, run, add } = await hostWith(t, { ...bridge, plugins: bridge.plugins.slice(0, 1) });
  await add('podnet', 'web');
  await host.run(['cp', '-r', '/var/lib/cni/results', '/run/kept']);
  mkdirSync(host.file('/run/bin'));
  // What CHECK reports when DEL has removed something, and the runtime is about to remove the record.
  const script = `#!/bin/sh
rm /var/lib/cni/results/podnet-* > /dev/null 2>&1
echo '{"code": 100, "msg": "a rule is missing"}'
exit 1
`;
  writeFileSync(host.file('/run/bin/bridge'), script);
  chmodSync(host.file('/run/bin/bridge'), 0o755);
  const look = async (...args: string[]) => {
    await host.run(['sh', '-c', 'cp /run/kept/* /var/lib/cni/results/']);
    return await run(args, { CNI_PATH: '/run/bin' });
  };
  const list = await look('list');
  t.deepEqual([list.exit, list.stdout], [0, '0 attachments.\n'], list.stderr);
  const drawn = await look('draw');
  t.is(drawn.exit, 0);
  t.notRegex(drawn.stdout, /broken|web/);
  const { checks } = JSON.parse((await look('doctor', '-o', 'json')).stdout) as {
    checks: { id: string; findings: object[] }[];
  };
  t.deepEqual(checks.find(({ id }) => id === 'attachments')!.findings, []);
});

test('files that are torn, empty or foreign hide nothing else, and are named', async (t) => {
  const { host, run, add } = await hostWith(t, bridge);
  await add('podnet', 'web');
  const results = host.file('/var/lib/cni/results');
  const good = 'podnet-x-eth0';
  for (const [name, text] of Object.entries({
    [good]: '{"kind":"cniCacheV1","netw',
    empty: '',
    list: '[]',
    other: '{"a":1}',
  }))
    writeFileSync(`${results}/${name}`, text);
  mkdirSync(`${results}/directory`);
  writeFileSync(`${results}/.12.tmp`, '{');
  await host.run(['mkfifo', '/var/lib/cni/results/fifo']);
  writeFileSync(host.file('/var/lib/cni/networks/podnet/10.88.0.77'), 'no owner here');
  writeFileSync(host.file('/etc/cni/net.d/50-broken.conflist'), '{');
  const { exit, stdout, stderr } = await run(['list']);
  t.is(exit, 1);
  t.regex(stdout, /web .* ok\n\n1 attachment, all ok/);
  for (const named of [
    /podnet-x-eth0" is not JSON/,
    /results\/empty" is empty/,
    /results\/list" is not a JSON object/,
    /results\/other" is not in the format/,
    /10\.88\.0\.77" is not a reservation/,
    /50-broken\.conflist" cannot be used/,
  ])
    t.regex(stderr, named);
  t.notRegex(stderr, /\n {4}at /);
});

test('500 orphans are listed', async (t) => {
  const { host, run, listed } = await hostWith(t, bridge);
  const results = '/var/lib/cni/results';
  mkdirSync(host.file(results), { recursive: true });
  for (let i = 0; i < 500; i++)
    writeFileSync(
      host.file(`${results}/podnet-dead${i}-eth0`),
      JSON.stringify({
        ...{ kind: 'cniCacheV1', containerId: `dead${i}`, ifName: 'eth0', networkName: 'podnet' },
        ...{ config: Buffer.from(JSON.stringify(bridge)).toString('base64'), netns: `/run/netns/dead${i}` },
        result: { cniVersion: '1.1.0', ips: [{ address: `10.88.${1 + (i >> 8)}.${i & 255}/16` }] },
      }),
    );
  const { exit, stdout } = await run(['list']);
  t.is(exit, 1);
  t.regex(stdout, /\n500 attachments, 500 orphaned\./);
  t.is((await listed('--orphaned')).attachments.length, 500);
});

test('on a narrow terminal each attachment is a block, and no line is wider', async (t) => {
  const { host, add } = await hostWith(t, bridge);
  const pod = await add('podnet', 'default/web', port(8080));
  await pod.run(['ip', 'link', 'set', 'eth0', 'down']);
  const output = await host.tryRun(
    ['script', '-qec', `stty cols 40; CNI_PATH=${suites.ours} NO_COLOR=1 ${command} list`, '/dev/null'],
    { env: { TERM: 'xterm' } },
  );
  const lines = output.stdout.split(/\r?\n/);
  t.true(lines.includes('default/web'), output.stdout);
  t.true(lines.includes('  addresses 10.88.0.2'));
  t.regex(output.stdout, /state broken: [\s\S]*is down/);
  t.deepEqual(
    lines.filter((line) => line.length > 40),
    [],
  );
});

test('--watch prints what changes, and ends with Ctrl-C', async (t) => {
  const { host, run, add } = await hostWith(t, bridge);
  const pod = await add('podnet', 'default/web');
  const child = await host.start(t, [
    'env',
    `CNI_PATH=${suites.ours}`,
    command,
    'list',
    '--watch',
    '-o',
    'json',
  ]);
  const seen: { change?: string; attachment?: Listed['attachments'][number]; problems?: string[] }[] = [];
  createInterface(child.stdout!).on('line', (line) => seen.push(JSON.parse(line) as (typeof seen)[number]));
  const next = (isIt: (one: (typeof seen)[number]) => boolean) =>
    until('a change is printed', async () => seen.some(isIt));
  await pod.run(['ip', 'link', 'set', 'eth0', 'down']);
  await next(({ change, attachment }) => change === 'changed' && attachment?.state === 'broken');
  const other = await add('podnet', 'default/db');
  // It may have been seen before ADD had ended, when nobody knew whose it was.
  await next(({ attachment }) => attachment?.pod?.name === 'db');
  await run(['del', 'podnet', other.netns]);
  await next(({ change, attachment }) => change === 'removed' && attachment?.pod?.name === 'db');
  const torn = host.file('/var/lib/cni/results/torn-eth0');
  writeFileSync(torn, '{"kind":');
  await next(({ problems }) => /torn-eth0/.test(problems?.[0] ?? ''));
  rmSync(torn);
  await next(({ problems }) => problems?.length === 0);
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGINT');
  t.is(await ended, 0);
  t.is((await run(['list', '--watch', '-o', 'yaml'])).exit, 2);
});

test('a bridge that is configured by an alternative name is found', async (t) => {
  const plugins = [{ type: 'bridge', bridge: 'pods', ipam: { type: 'host-local', subnet: '10.5.0.0/24' } }];
  const { host, cni, add } = await operatorOf(t, plugins);
  await host.run(['ip', 'link', 'add', 'br0', 'type', 'bridge']);
  await host.run(['ip', 'link', 'property', 'add', 'dev', 'br0', 'altname', 'pods']);
  await add();
  t.notRegex(await cni(['list']), /broken|missing/);
});
