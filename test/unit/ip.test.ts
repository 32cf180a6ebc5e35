import test from 'ava';
import { IPv4, IPv4CidrRange, IPv6, IPv6CidrRange } from 'ip-num';
import { Address, Prefix } from '../../lib/ip.ts';

/** Numbers that repeat from run to run. */
function* numbers(count: number): Generator<bigint> {
  let state = 0x2545f4914f6cdd1dn;
  for (let i = 0; i < count; i++) {
    state ^= (state << 13n) & 0xffffffffffffffffn;
    state ^= state >> 7n;
    state ^= (state << 17n) & 0xffffffffffffffffn;
    yield state;
  }
}

test('IPv4 addresses are read and written as ip-num does', (t) => {
  for (const number of numbers(500)) {
    const value = number & 0xffffffffn;
    const text = IPv4.fromNumber(value).toString();
    t.is(new Address(4, value).toString(), text);
    t.is(Address.parse(text).value, value);
    t.deepEqual(Address.fromBytes(Address.parse(text).toBytes()), Address.parse(text));
  }
});

test('IPv6 addresses are read as ip-num does, in full and shortened', (t) => {
  for (const number of numbers(500)) {
    // Few bits set, so that there are runs of zeros to shorten.
    const value = (number & 0xffff0000ffffn) << ((number & 0x3fn) + 1n);
    const address = new Address(6, value & ((1n << 128n) - 1n));
    if (address.value >> 32n === 0xffffn) continue;
    t.is(IPv6.fromString(address.toString()).getValue(), address.value, address.toString());
    t.is(Address.parse(IPv6.fromBigInt(address.value).toString()).value, address.value);
  }
});

test('prefixes have the bounds that ip-num gives them', (t) => {
  for (const number of numbers(300)) {
    const four = new Prefix(new Address(4, number & 0xffffffffn), Number(number & 31n));
    const range4 = IPv4CidrRange.fromCidr(`${four.network}`);
    t.is(four.first.value, range4.getFirst().getValue());
    t.is(four.last.value, range4.getLast().getValue());
    t.is(four.mask.value, range4.getPrefix().toMask().getValue());
    const six = new Prefix(new Address(6, (number << 64n) | number), Number(number & 127n));
    const range6 = IPv6CidrRange.fromCidr(`${six.network}`);
    t.is(six.first.value, range6.getFirst().getValue());
    t.is(six.last.value, range6.getLast().getValue());
    t.true(six.contains(six.address));
  }
});

test('canonical text of RFC 5952', (t) => {
  const cases: Record<string, string> = {
    '2001:DB8:0:0:0:0:0:1': '2001:db8::1',
    '2001:db8:0:0:1:0:0:1': '2001:db8::1:0:0:1',
    '2001:db8:0:1:1:1:1:1': '2001:db8:0:1:1:1:1:1',
    '0:0:0:0:0:0:0:0': '::',
    '::1': '::1',
    'fe80::': 'fe80::',
    '::ffff:10.0.0.1': '10.0.0.1',
    '64:ff9b::192.0.2.1': '64:ff9b::c000:201',
  };
  for (const [text, canonical] of Object.entries(cases)) t.is(Address.parse(text).toString(), canonical);
});

test('what is no address is refused', (t) => {
  for (const text of [
    '',
    '1.2.3',
    '1.2.3.4.5',
    '256.1.1.1',
    '01.2.3.4',
    '1.2.3.4/8',
    ' 1.2.3.4',
    ':',
    ':::',
    '1::2::3',
    '12345::',
    'g::',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7',
    '::1%eth0',
    '::256.1.1.1',
  ])
    t.is(Address.tryParse(text), undefined, text);
  for (const text of [
    '10.0.0.1',
    '10.0.0.1/33',
    '10.0.0.1/-1',
    '10.0.0.1/a',
    '::1/129',
    '/8',
    '10.0.0.0/8/8',
  ])
    t.is(Prefix.tryParse(text), undefined, text);
});

test('link-local addresses are those of 169.254.0.0/16 and fe80::/10', (t) => {
  for (const [text, isLinkLocal] of [
    ['169.253.255.255', false],
    ['169.254.0.0', true],
    ['169.254.255.255', true],
    ['169.255.0.0', false],
    ['fe7f:ffff::', false],
    ['fe80::', true],
    ['febf:ffff::1', true],
    ['fec0::', false],
  ] as const)
    t.is(Address.parse(text).isLinkLocal, isLinkLocal, text);
});
