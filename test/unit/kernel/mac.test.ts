import test from 'ava';
import { formatMac, normalizeMac, parseHardwareAddress, parseMac } from '../../../lib/kernel/mac.ts';

const infiniBand = '00:00:00:20:fe:80:00:00:00:00:00:00:02:00:5e:10:00:00:00:01';

test('reads hardware addresses as Go does', (t) => {
  for (const text of ['0a:58:0a:01:00:05', '0A-58-0A-01-00-05', '0a58.0a01.0005'])
    t.is(formatMac(parseMac(text)!), '0a:58:0a:01:00:05', text);
  t.is(formatMac(parseHardwareAddress(infiniBand)!), infiniBand);
  t.is(formatMac(parseHardwareAddress('0a58.0a01.0005.0006')!), '0a:58:0a:01:00:05:00:06');
});

test('writes addresses as the kernel has them, and leaves what is none', (t) => {
  t.is(normalizeMac('0A58.0A01.0005'), '0a:58:0a:01:00:05');
  t.is(normalizeMac('none'), 'none');
});

test('takes nothing else for one', (t) => {
  for (const text of [
    '',
    '0a:58:0a:01:00',
    '0a:58:0a:01:00:05:06',
    '0a:58:0a:01:00-05',
    '0a580a010005',
    '0a58:0a01:0005',
    '0a58.0a01.00',
    '0a:58:0a:01:00:0g',
    '0a:58:0a:01:00:05\n',
  ])
    t.is(parseHardwareAddress(text), undefined, text);
  t.is(parseMac(infiniBand), undefined, 'interfaces get six bytes');
});
