import { createHash } from 'node:crypto';
import test from 'ava';
import {
  attachmentComment,
  attachmentTag,
  hashName,
  masqueradeChain,
  portMapChain,
  portMapComment,
  readComment,
} from '../../../lib/firewall/names.ts';
import { sha512 } from '../../../lib/firewall/sha512.ts';

test('SHA-512 is that of OpenSSL, for every length around the blocks', (t) => {
  for (let length = 0; length < 300; length++) {
    const text = 'aé\u{1F600}b'.repeat(length).slice(0, length);
    t.is(sha512(text), createHash('sha512').update(text).digest('hex'), `${length}`);
  }
});

test('names are the reference plugins’', (t) => {
  t.is(masqueradeChain({ network: 'test', containerId: '1234' }), 'CNI-2bbe0c48b91a7d1b8a6753a8');
  t.is(portMapChain({ network: 'n', containerId: 'k7' }), 'CNI-DN-bd06bce10961b0ef5645c');
  t.is(hashName(16, '', 'unit-test'), '6fd94d501e58f0aa');
  t.is(hashName(15, 'bwp', 'name1cid').length, 15);
});

test('comments tell whose rules they are, even when they are cut', (t) => {
  t.deepEqual(readComment('name: "net" id: "one"'), { network: 'net', containerId: 'one' });
  t.deepEqual(readComment('dnat name: "net" id: "one"'), { network: 'net', containerId: 'one' });
  t.is(readComment('something else'), undefined);
  const long = portMapComment({ network: 'net', containerId: 'c'.repeat(300) });
  t.is(long.length, 256);
  t.regex(long, /\.\.\.$/);
});

test('comments in nftables begin with the attachment, have no quotes, and are cut to what nft takes', (t) => {
  const attachment = { network: 'n"et', containerId: 'one', ifname: 'eth0' };
  t.is(attachmentComment(attachment), `${attachmentTag(attachment)}, net: net, if: eth0, id: one`);
  const long = attachmentComment({ ...attachment, containerId: 'c'.repeat(300) });
  t.is(long.length, 128);
  t.regex(long, /^[0-9a-f]{16}-[0-9a-f]{16}, net: net, if: eth0, id: c+$/);
});
