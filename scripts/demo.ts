/**
 * Shows the plugins at work, with the sample networks of conf/: one network namespace plays the host, others
 * play pods and a machine outside. Every claim is tested with `ip`, `ping` and real connections; the exit
 * code is 0 only if all held.
 */

import { type Attachment, type AttachOptions, attach, sample } from '../test/support/chain.ts';
import { type Host, makeHost, type Namespace, type Teardown } from '../test/support/host.ts';
import * as observe from '../test/support/observe.ts';
import { outsideOf } from '../test/support/outside.ts';

const cleanups: (() => void | Promise<void>)[] = [];
const t: Teardown = { teardown: (step) => void cleanups.push(step) };
const started = performance.now();
let held = 0;
let failed = 0;

try {
  await demo();
} catch (error) {
  failed++;
  console.error(`\n  ✘ ${(error as Error).message}`);
}
for (const step of cleanups.reverse()) await step();

const seconds = ((performance.now() - started) / 1000).toFixed(1);
console.log(
  failed === 0
    ? `\nAll ${held} checks held in ${seconds} s. The namespaces have been removed; the network of this machine was not touched.`
    : `\n${failed} of ${held + failed} checks failed.`,
);
process.exitCode = failed === 0 ? 0 : 1;

async function demo(): Promise<void> {
  heading('1. A host, and a machine outside of it');
  const host = await makeHost(t);
  const outside = await outsideOf(host, 'uplink');
  say('the host has 192.0.2.1 on its uplink, the machine outside has 192.0.2.2 and knows nothing of pods');

  heading('2. ADD: what the kubelet has a runtime do for every pod');
  const bridged = sample('10-bridge.conflist');
  const routed = sample('20-ptp.conflist');
  const web = await add('web', host, bridged, {
    capabilities: { portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }] },
  });
  const client = await add('client', host, bridged);
  const lone = await add('lone', host, routed);
  const pods = { web, client, lone };

  heading('3. Addresses, as `ip` shows them');
  for (const [name, { pod }] of Object.entries(pods))
    await show(`in pod ${name}`, pod, ['ip', '-4', '-br', 'address']);
  await show('in pod web', web.pod, ['ip', 'route']);
  await show('on the host', host, ['ip', '-4', '-br', 'address']);

  heading('4. Traffic');
  await observe.serve(t, web.pod, 'tcp', 80, 'web');
  await observe.serve(t, outside, 'tcp', 80, 'outside');
  await check(`pod client reaches pod web (ping ${web.ip})`, observe.ping(client.pod, web.ip));
  await check(
    'pod client reaches the host (ping 10.88.0.1, the bridge)',
    observe.ping(client.pod, '10.88.0.1'),
  );
  await check(`the host reaches pod client (ping ${client.ip})`, observe.ping(host, client.ip));
  await check(
    `pod lone, on its point-to-point link, reaches pod web on the bridge`,
    observe.ping(lone.pod, web.ip),
  );
  await check('pod client fetches from pod web over TCP', answers(client.pod, web.ip, 80, 'web'));
  await check('the host reaches pod web at 127.0.0.1:8080', answers(host, '127.0.0.1', 8080, 'web'));
  await check('pod client reaches pod web at 192.0.2.1:8080', answers(client.pod, '192.0.2.1', 8080, 'web'));
  await check(
    'the machine outside reaches pod web at 192.0.2.1:8080',
    answers(outside, '192.0.2.1', 8080, 'web'),
  );
  for (const [name, { pod }] of Object.entries({ client, lone }))
    await check(
      `pod ${name} reaches the machine outside, which sees only the host's address`,
      observe.ask(pod, 'tcp', '192.0.2.2', 80).then((echo) => echo?.peer === '192.0.2.1'),
    );

  heading('5. CHECK: is everything still as ADD left it?');
  for (const [name, attachment] of Object.entries(pods))
    await check(`pod ${name}`, succeeds(attachment.check()));
  await client.pod.run(['ip', 'address', 'flush', 'dev', 'eth0']);
  await check(
    'CHECK notices that the address of pod client was removed',
    succeeds(client.check()).then((ok) => !ok),
  );

  heading('6. DEL: nothing is left');
  for (const [name, attachment] of Object.entries(pods))
    await check(`pod ${name}`, succeeds(attachment.del()));
  await check(
    'no link of a pod',
    noneOf(
      (await observe.links(host)).map(({ ifname }) => ifname),
      /^veth/,
    ),
  );
  await check(
    'no firewall rule of a pod',
    noneOf(await observe.iptablesSave(host), /10\.8[89]\.|container-pod/),
  );
  await check('no reserved address', noneOf(Object.keys(observe.files(host, '/var/lib/cni')), /\/[0-9.]+$/));
  await check(
    'the host port is closed',
    observe.ask(host, 'tcp', '127.0.0.1', 8080).then((echo) => !echo),
  );
  say(
    'the bridge cni0 and the empty chains that all pods share stay for the next pod, as with the reference plugins',
  );
}

async function add(
  name: string,
  host: Host,
  network: ReturnType<typeof sample>,
  options: AttachOptions = {},
): Promise<Attachment> {
  const from = performance.now();
  const attachment = await attach(host, network, options);
  const chain = network.plugins.map(({ type }) => type).join(' → ');
  const ports = (options.capabilities?.portMappings ?? []).map(
    ({ hostPort, containerPort }) => `, host port ${hostPort} → ${containerPort}`,
  );
  held++;
  console.log(
    `  ✔ pod ${name.padEnd(6)} network ${network.name.padEnd(6)} (${chain}): ${attachment.ip}${ports.join('')}` +
      ` in ${Math.round(performance.now() - from)} ms`,
  );
  return attachment;
}

async function answers(from: Namespace, address: string, port: number, label: string): Promise<boolean> {
  return (await observe.ask(from, 'tcp', address, port))?.label === label;
}

async function succeeds(step: Promise<unknown>): Promise<boolean> {
  return step.then(
    () => true,
    () => false,
  );
}

async function noneOf(lines: string[], pattern: RegExp): Promise<boolean> {
  return !lines.some((line) => pattern.test(line));
}

async function check(claim: string, truth: Promise<boolean>): Promise<void> {
  const ok = await truth;
  if (ok) held++;
  else failed++;
  console.log(`  ${ok ? '✔' : '✘'} ${claim}`);
}

async function show(where: string, ns: Namespace, argv: string[]): Promise<void> {
  const output = await ns.run(argv);
  console.log(`  ${where}$ ${argv.join(' ')}`);
  for (const line of output.trimEnd().split('\n')) console.log(`      ${line.trimEnd()}`);
}

function heading(text: string): void {
  console.log(`\n${text}`);
}

function say(text: string): void {
  console.log(`  ${text}`);
}
