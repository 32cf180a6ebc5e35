/** Chains of iptables into which somebody has put rules of nft, so that iptables cannot list them. */

import test from 'ava';
import { Attachment, attach, runNetworkVerb } from '../support/chain.ts';
import { type Host, makeHost } from '../support/host.ts';
import { portNet, ports } from '../support/portmap.ts';

const nft = (host: Host, ...commands: string[]) =>
  host.run(['nft', '-f', '-'], { stdin: commands.join('\n') });
const nat = (host: Host) => host.run(['nft', '--stateless', 'list', 'table', 'ip', 'nat']);
const count = (text: string, part: string) => text.split(part).length - 1;

/** A host that has the chains of iptables, and a rule of nft in POSTROUTING. */
async function mixedHost(t: Parameters<typeof makeHost>[0]) {
  const host = await makeHost(t);
  await host.run(['iptables', '-t', 'nat', '-A', 'POSTROUTING', '-s', '203.0.113.1', '-j', 'ACCEPT']);
  await nft(
    host,
    'add set ip nat foreign { type ipv4_addr; }',
    'add rule ip nat POSTROUTING ip saddr @foreign masquerade',
  );
  return host;
}

test('a DEL that cannot see the rules fails and says why, and succeeds once it can', async (t) => {
  const host = await mixedHost(t);
  const one = await attach(host, portNet());
  const bridge = new Attachment(host, one.pod, { ...portNet(), plugins: portNet().plugins.slice(0, 1) });
  const refused = await bridge.tryDel({ netns: '' });
  t.not(refused.exit, 0);
  t.regex(refused.error?.msg ?? '', /cannot list chain "POSTROUTING" of table "nat".*nft list chain ip nat/);
  t.is(count(await nat(host), `ip saddr ${one.ip}`), 1);
  const collected = await runNetworkVerb(host, bridge.network, 'GC', { valid: [] });
  t.regex(collected.error?.msg ?? '', /cannot list table "nat"/);
  await nft(host, 'flush chain ip nat POSTROUTING');
  await host.run(['iptables', '-t', 'nat', '-A', 'POSTROUTING', '-s', one.ip, '-j', 'ACCEPT']);
  await bridge.del({ netns: '' });
  t.notRegex(await nat(host), /chain CNI-[0-9a-f]{24}/);
});

test('attachments come, are checked and go beside rules of nft, and shared rules are there once', async (t) => {
  const host = await mixedHost(t);
  const [one, other] = [
    await attach(host, portNet(), ports([8080, 80])),
    await attach(host, portNet(), ports([8081, 80])),
  ];
  await one.check();
  // Another ADD looks the shared rules up again.
  await new Attachment(
    host,
    one.pod,
    { ...portNet(), plugins: portNet().plugins.slice(1) },
    one.options,
  ).tryAdd({}, one.result);
  t.is(count(await nat(host), 'jump CNI-HOSTPORT-MASQ'), 1);
  for (const attachment of [one, other]) await attachment.del();
  await other.del();
  t.notRegex(await nat(host), /chain CNI-(?:DN-)?[0-9a-f]{20}/);
});
