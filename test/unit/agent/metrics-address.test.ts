import test from 'ava';
import { parseMetricsAddress } from '../../../agent/metrics-address.ts';

test('loopback addresses and Unix sockets are taken', (t) => {
  t.deepEqual(parseMetricsAddress('127.0.0.1:9464'), { host: '127.0.0.1', port: 9464 });
  t.deepEqual(parseMetricsAddress('127.8.9.10:65535'), { host: '127.8.9.10', port: 65535 });
  t.deepEqual(parseMetricsAddress('[::1]:1'), { host: '::1', port: 1 });
  t.deepEqual(parseMetricsAddress('[0:0::1]:9464'), { host: '0:0::1', port: 9464 });
  t.deepEqual(parseMetricsAddress('unix:/run/cni/metrics.sock'), { path: '/run/cni/metrics.sock' });
});

test('addresses that others can reach are refused, with the reason and what to give', (t) => {
  for (const address of [
    '0.0.0.0:9464',
    '10.0.0.1:9464',
    '[::]:9464',
    '[fe80::1]:9464',
    '[::ffff:127.0.0.1]:9464',
  ])
    t.throws(() => parseMetricsAddress(address), {
      message: /without encryption or a password.* is not a loopback address\. Give 127\.0\.0\.1:PORT/,
    });
});

test('what is no address is refused', (t) => {
  for (const address of [
    '',
    '9464',
    ':9464',
    '127.0.0.1',
    '127.0.0.1:',
    '127.0.0.1:0',
    '127.0.0.1:65536',
    '127.0.0.1:http',
    '127.1:9464',
    '127.0.0.1.example.org:9464',
    'localhost:9464',
    '::1:9464',
    '[127.0.0.1]:9464',
    '[::1%lo]:9464',
    'http://127.0.0.1:9464',
  ])
    t.throws(() => parseMetricsAddress(address), { message: /is not a .*address\. Give 127/ }, address);
  t.throws(() => parseMetricsAddress('unix:metrics.sock'), { message: /must have an absolute path/ });
});
