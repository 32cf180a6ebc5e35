import test from 'ava';
import { commentOf, identityOf, isOf } from '../../../lib/firewall/portmap-nft-rules.ts';
import { Address } from '../../../lib/ip.ts';
import { Attributes, bytesAttr, nestedAttr } from '../../../lib/netlink/message.ts';

const attachment = { network: 'net', containerId: 'one', ifname: 'eth0' };
const address = Address.parse('10.1.0.5');

/** A rule that leads to an address. */
const rule = (change: { comment?: string; owner?: string }) => ({
  handle: 1n,
  comment: commentOf(attachment),
  owner: '',
  expressions: [
    {
      name: 'immediate',
      data: new Attributes(nestedAttr(2, [bytesAttr(1, address.toBytes())])),
      payload: new Uint8Array(),
    },
  ],
  ...change,
});

test("a rule of the reference plugin is an attachment's by its comment and the container's address", (t) => {
  t.true(isOf(attachment, rule({})), 'no address is known');
  t.true(isOf(attachment, rule({}), [address]));
  t.true(isOf(attachment, rule({}), [Address.parse('fd00::5'), address]));
  t.false(isOf(attachment, rule({}), [Address.parse('10.1.0.6')]));
  t.false(isOf(attachment, rule({ comment: 'another' })));
});

/** The network and the interface of an attachment, as a rule names them. */
const ownerOf = (one: typeof attachment) => identityOf(one).slice(0, -`/${commentOf(one)}`.length);

test('a rule that has an owner is that of no other attachment', (t) => {
  t.true(isOf(attachment, rule({ owner: ownerOf(attachment) }), [Address.parse('10.1.0.6')]));
  for (const change of [{ network: 'other' }, { ifname: 'eth1' }])
    t.false(isOf(attachment, rule({ owner: ownerOf({ ...attachment, ...change }) }), [address]));
  t.false(isOf({ ...attachment, containerId: 'two' }, rule({ owner: ownerOf(attachment) }), [address]));
});
