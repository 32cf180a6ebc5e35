import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import test from 'ava';
import { Attachment, attach, type Conflist, runNetworkVerb } from '../support/chain.ts';
import { makeHost } from '../support/host.ts';
import { iptablesSave, link, links } from '../support/observe.ts';
import { suites } from '../support/plugin.ts';
import { cleanEnv } from '../support/run.ts';

/** A network whose addresses come from a script at `/run/bin/addresses`. */
const network: Conflist = {
  cniVersion: '1.1.0',
  name: 'net',
  plugins: [{ type: 'bridge', bridge: 'br0', ipMasq: true, ipam: { type: 'addresses' } }],
};
const env = { CNI_PATH: `${suites.ours}:/run/bin` };

/** An IPAM plugin that gives one address, and fails the verbs that are in a file. */
const script = `#!/bin/sh
if grep -q "^$CNI_COMMAND$" /run/failing 2>/dev/null; then
  echo '{"cniVersion": "1.1.0", "code": 117, "msg": "The address server is on strike"}'
  exit 1
fi
echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.5.0.2/24"}]}'
`;

test("DEL, CHECK, STATUS and GC pass the IPAM plugin's error on, and DEL and GC do the rest all the same", async (t) => {
  const host = await makeHost(t);
  await host.run(['mkdir', '/run/bin']);
  writeFileSync(host.file('/run/bin/addresses'), script, { mode: 0o755 });
  const chains = async () => (await iptablesSave(host)).filter((rule) => /^-A POSTROUTING/.test(rule)).length;
  const one = await attach(host, network, { env });
  const stale = await attach(host, network, { env });
  t.is(await chains(), 2);
  await host.run(['sh', '-c', 'printf "DEL\\nCHECK\\n" > /run/failing']);
  t.like((await one.tryCheck()).error, { code: 117, msg: 'The address server is on strike' });
  const failed = await one.tryDel();
  t.is(failed.exit, 1);
  t.like(failed.error, { code: 117, msg: 'The address server is on strike' });
  t.is(await link(one.pod, 'eth0'), undefined);
  t.is(await chains(), 1);

  await stale.pod.remove();
  const withPath = { ...network, plugins: [{ ...network.plugins[0]!, ipam: { type: 'missing' } }] };
  const collected = await runNetworkVerb(host, withPath, 'GC', { valid: [] });
  t.is(collected.exit, 1);
  t.regex(collected.error?.msg ?? '', /"missing" is not in CNI_PATH/);
  t.is(await chains(), 0);
  t.is((await runNetworkVerb(host, withPath, 'STATUS')).error?.code, 50);
});

test('an IPAM plugin that is just being replaced is waited for', async (t) => {
  const host = await makeHost(t);
  await host.run(['sh', '-c', `mkdir /run/bin && cp /usr/lib/cni/static /run/bin/addresses`]);
  const fixed = {
    ...network,
    // The newest that this program takes.
    cniVersion: '1.0.0',
    plugins: [
      { ...network.plugins[0]!, ipam: { type: 'addresses', addresses: [{ address: '10.5.0.2/24' }] } },
    ],
  };
  const [program, ...args] = host.enter as [string, ...string[]];
  // As whoever copies a new program over it: execve(2) fails with ETXTBSY while the file is open for writing.
  const writer = spawn(program, [...args, 'sh', '-c', 'exec 3>>/run/bin/addresses; echo open; read _'], {
    env: cleanEnv,
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  t.teardown(() => void writer.kill('SIGKILL'));
  await new Promise((resolve) => writer.stdout.once('data', resolve));
  const adding = new Attachment(host, await host.addPod(), fixed, { env }).tryAdd();
  // The pair is made right before the IPAM plugin is run for the first time.
  while (!(await links(host)).some(({ ifname }) => ifname.startsWith('veth')));
  setTimeout(() => writer.stdin.end('\n'), 300);
  const { exit, stdout, result } = await adding;
  t.is(exit, 0, stdout);
  t.is(result?.ips?.[0]?.address, '10.5.0.2/24');
});
