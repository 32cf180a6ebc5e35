import test from 'ava';
import { readError } from '../../../lib/netlink/error.ts';
import {
  Attributes,
  be32Attr,
  decodeMessages,
  encodeMessage,
  listAttributes,
  nestedAttr,
  type Request,
  stringAttr,
} from '../../../lib/netlink/message.ts';

const request: Request = {
  action: 'add route to 9.0.0.0/8',
  type: 24,
  flags: 0,
  payload: new Uint8Array(12),
};

/** Captured: what kernel 6.18 answered to a route by a gateway that is out of reach: ENETUNREACH, and why. */
const refusal = Uint8Array.from(
  Buffer.from(
    '680000000200000201000000d14300009bffffff3400000018000504010000000000000002080000fe0300010000000008000f00fe00000008000100090000000800050063010001200001004e657874686f702068617320696e76616c6964206761746577617900',
    'hex',
  ),
);

test('the reason that the kernel gives becomes the message', (t) => {
  const [message] = decodeMessages(refusal);
  const error = readError(message!, request, 3);
  t.is(error?.message, 'Cannot add route to 9.0.0.0/8: Nexthop has invalid gateway (ENETUNREACH)');
  t.is(error?.code, 'ENETUNREACH');
  t.is(error?.index, 3);
});

test('without a reason the text of the number stands', (t) => {
  const bare = encodeMessage({ action: '', type: 2, flags: 0, payload: refusal.subarray(16, 36) }, 1);
  t.is(
    readError(decodeMessages(bare)[0]!, request, 0)?.message,
    'Cannot add route to 9.0.0.0/8: network is unreachable (ENETUNREACH)',
  );
});

test('an acknowledgement is no error', (t) => {
  const ack = encodeMessage({ action: '', type: 2, flags: 0, payload: new Uint8Array(20) }, 1);
  t.is(readError(decodeMessages(ack)[0]!, request, 0), undefined);
});

test('what is written is read', (t) => {
  const attributes = new Attributes(
    Buffer.concat([stringAttr(3, 'eth0'), be32Attr(4, 1500), nestedAttr(18, [stringAttr(1, 'veth')])]),
  );
  t.is(attributes.string(3), 'eth0');
  t.is(attributes.be32(4), 1500);
  t.is(attributes.nested(18)?.string(1), 'veth');
  t.is(attributes.be32(99), undefined);
});

test('a torn message is an error, never read past its end', (t) => {
  for (let length = 16; length < refusal.length; length++)
    t.throws(() => decodeMessages(refusal.subarray(0, length)), { instanceOf: RangeError });
  const attribute = be32Attr(4, 1500);
  for (let length = 4; length < attribute.length; length++)
    t.throws(() => listAttributes(attribute.subarray(0, length)), { instanceOf: RangeError });
  t.throws(() => new Attributes(Uint8Array.of(4, 0, 4, 0)).be32(4), {
    message: /has 0 bytes where 4 are needed/,
  });
  t.throws(() => listAttributes(Uint8Array.of(3, 0, 1, 0)), { instanceOf: RangeError });
});
