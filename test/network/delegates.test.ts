import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import test from 'ava';
import { callsOf } from '../support/agent.ts';
import { Attachment, attach, type Conflist, runNetworkVerb } from '../support/chain.ts';
import { makeHost, startAgent } from '../support/host.ts';
import { iptablesSave, link } from '../support/observe.ts';
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
    // The newest version that this program supports.
    cniVersion: '1.0.0',
    plugins: [
      { ...network.plugins[0]!, ipam: { type: 'addresses', addresses: [{ address: '10.5.0.2/24' }] } },
    ],
  };
  const [program, ...args] = host.enter as [string, ...string[]];
  // Like copying a new program over it: execve(2) fails with ETXTBSY while the file is open for writing, and is
  // tried for five seconds. The pair is made right before the first try.
  const write = `exec 3>>/run/bin/addresses; echo open
    for i in $(seq 600); do ls -d /sys/class/net/veth* >/dev/null 2>&1 && break; sleep 0.05; done; sleep 0.3`;
  const writer = spawn(program, [...args, 'sh', '-c', write], {
    env: cleanEnv,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => void writer.kill('SIGKILL'));
  await new Promise((resolve) => writer.stdout.once('data', resolve));
  const { exit, stdout, result } = await new Attachment(host, await host.addPod(), fixed, { env }).tryAdd();
  t.is(exit, 0, stdout);
  t.is(result?.ips?.[0]?.address, '10.5.0.2/24');
});

test('a delegate in another executable has all of the environment of the runtime, with the agent and without', async (t) => {
  const host = await makeHost(t, { mayHaveAgent: false });
  await host.run(['mkdir', '/run/bin']);
  const telling = script.replace(
    '#!/bin/sh',
    '#!/bin/sh\ntr "\\0" "\\n" < /proc/self/environ > /run/environment',
  );
  writeFileSync(host.file('/run/bin/addresses'), telling, { mode: 0o755 });
  const given = {
    HTTPS_PROXY: 'http://proxy.example:3128',
    SSL_CERT_FILE: '/etc/pki/corp.pem',
    NODE_OPTIONS: '--no-such-option',
    LD_LIBRARY_PATH: '/run/none',
    ETCD_ENDPOINTS: 'https://192.0.2.1:2379',
  };
  const told = () =>
    readFileSync(host.file('/run/environment'), 'utf8')
      .trim()
      .split('\n')
      .filter((line) => !/^(_|PWD|SHLVL|OLDPWD|CNI_(CONTAINERID|NETNS))=/.test(line))
      .sort();
  const environmentOfDelegate = async () => {
    const one = await attach(host, network, { env: { ...env, ...given } });
    const lines = told();
    await one.del();
    return lines;
  };
  const without = await environmentOfDelegate();
  for (const [name, value] of Object.entries(given)) t.true(without.includes(`${name}=${value}`), name);
  t.false(without.some((line) => line.startsWith('CNI_FOR_CHILDREN_')));
  await startAgent(t, host);
  t.deepEqual(await environmentOfDelegate(), without);
  t.is(await callsOf(host), 2);

  const alone = { ...network, plugins: [{ type: 'addresses' }] };
  writeFileSync(host.file('/etc/cni/net.d/net.conflist'), JSON.stringify(alone));
  const { netns } = await host.addPod();
  await host.run([`${suites.ours}/cni`, 'add', 'net', netns], { env: { ...env, ...given } });
  for (const [name, value] of Object.entries(given))
    t.true(told().includes(`${name}=${value}`), `cni: ${name}`);
});
