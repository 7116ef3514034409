"""A Tramline client in 200 lines of Python's standard library, written from docs/PROTOCOL.md alone (see docs/CLIENTS.md).

    python3 docs/tramline_client.py HOST:PORT TOPIC [produce|consume]

produce reads lines `VALUE` or `KEY<tab>VALUE[<tab>NAME=VALUE]...` from standard input to its end, creates the topic if it is
missing, and ends when all records are durable, each once. consume prints what the topic holds, to the end each partition has at
the start, as `PARTITION<tab>OFFSET<tab>TIME_US<tab>KEY<tab>VALUE[<tab>NAME=VALUE]...`. Without either word: one, then the other.
Bytes that would break a line are written \\xNN; \\N stands for no key or no value. Exit code: 0 done, 1 failed, 2 wrong usage.
"""
import collections, functools, io, re, socket, struct, sys, time

HELLO, METADATA, PRODUCE, FETCH, FETCH_CREDIT, FETCH_CANCEL, LIST_OFFSETS, CREATE_TOPIC, INIT_PRODUCER = *range(1, 9), 17  # kinds
REPLY, MORE, ERROR, CONTROL, COMPACTED, TOMBSTONES, APPEND_TIME = 1, 2, 4, 1, 4, 8, 16  # flags of a frame (3) and of a batch
KEY, HEADERS, NULL, DELIVER_AT, PRIORITY, TTL, GROUP, ID = (1 << bit for bit in range(8))  # flags of a record
DURABLE, EXISTING_IS_FINE, STREAMING, EARLIEST, LATEST = 4, 1, 1, -2, -1
PARTITIONS, CREDIT_BYTES, SILENCE_S, LEVEL_MS, ROUND_BYTES = 4, 1 << 18, 30, 20_000, 60_000  # of lines in a round
FRAME, BATCH, LEADER = struct.Struct("<4sBBHQIII"), struct.Struct("<4sBBBBHHIIIIIqqQHHI"), struct.Struct("<IIQQQqII")
CODES = {8: "unknown_topic", 15: "record_too_large", 16: "batch_too_large", 22: "overloaded", 23: "disk_full", 27: "timed_out"}
CRC_TABLE = [functools.reduce(lambda crc, _: crc >> 1 ^ (0x82F63B78 if crc & 1 else 0), range(8), byte) for byte in range(256)]

def check(true, otherwise):
    true or sys.exit(f"tramline_client: {otherwise}")  # prints it on standard error; exit code 1
def check_code(code, what):
    check(code == 0, f"{what} (error code {code}, {CODES.get(code, 'see docs/PROTOCOL.md')})")

def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF

def prefixed(data):  # a `str` or `bytes` of the protocol
    check(len(data) <= 65535, f"a name or key of {len(data)} bytes is too long")
    return struct.pack("<H", len(data)) + data

class Reader:  # takes fields off a stream, in order; too few bytes are an error, and so are bytes that are left at the end
    def __init__(self, stream):
        self.stream = stream
    def take(self, size):
        data = self.stream.read(size)
        check(len(data) == size, "the node's answer ends too early; whether it did what was asked last is not known")
        return data
    def fields(self, layout):  # in the letters of `struct`; a single field comes as itself
        found = struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))
        return found if len(found) > 1 else found[0]
    def prefixed(self):
        return self.take(self.fields("H"))
    def end(self):
        check(not self.stream.read(1), "the node sent bytes behind the last field")

class Connection:  # has said hello
    def __init__(self, address):
        self.correlation, self.socket = 0, socket.create_connection(address, SILENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.replies = Reader(self.socket.makefile("rb"))
        self.call(HELLO, struct.pack("<HH", 1, 1) + b"".join(map(prefixed, (b"tramline_client.py", b"1", b"", b""))))
    def send(self, kind, meta, payload=b""):
        self.correlation += 1
        header = FRAME.pack(b"TRL1", kind, 1, 0, self.correlation, len(meta), len(payload), 0)
        self.socket.sendall(header + struct.pack("<I", crc32c(header + meta)) + meta + payload)
        return self.correlation
    def receive(self):  # the next frame: correlation, whether more follow, meta, payload; an error frame ends the program
        header, crc = self.replies.take(FRAME.size), self.replies.fields("I")
        magic, _kind, _version, flags, correlation, meta_len, payload_len, reserved = FRAME.unpack(header)
        check(magic == b"TRL1" and flags & REPLY and reserved == 0, "what answers there is no Tramline node")
        meta, payload = self.replies.take(meta_len), self.replies.take(payload_len)
        check(crc32c(header + meta) == crc, "an answer arrived damaged: its checksum is wrong")
        if flags & ERROR:
            code, _retriable, message_len = struct.unpack_from("<HBxH", meta)
            check_code(code, f"the node refused: {meta[6:6 + message_len].decode()}")
        return correlation, flags & MORE, Reader(io.BytesIO(meta)), payload
    def call(self, kind, meta, payload=b""):
        sent = self.send(kind, meta, payload)
        correlation, more, reply, _ = self.receive()
        check(correlation == sent and not more, "the node answered something that was not asked")
        return reply

def partitions_of(connection, topic):  # in order, of each: its uid and the address of its owner
    reply = connection.call(METADATA, struct.pack("<I", 1) + prefixed(topic))
    owners, _view_epoch = {}, reply.fields("Q")
    for _ in range(reply.fields("I")):
        node, host, _port = reply.fields("I"), reply.prefixed().decode(), reply.fields("H")
        owners.update({(node, shard): (host, reply.fields("H")) for shard in range(reply.fields("I"))})
    _topics, error, _name, _uid = reply.fields("I"), reply.fields("H"), reply.prefixed(), reply.fields("Q")
    check_code(error, f"nothing is known of topic {topic.decode()}")
    found = sorted(reply.fields("IQIIHQ") for _ in range(reply.fields("I")))
    reply.end()
    return [(uid, owners[node, shard]) for _index, uid, _group, node, shard, _term in found]

def partition_of(key, count):
    value = functools.reduce(lambda value, byte: (value ^ byte) * 0x100000001B3 % (1 << 64), key, 0xCBF29CE484222325)
    return (value ^ value >> 32) % count

def batch_of(records, producer=0, sequence=0):
    index, values, now_us = bytearray(), bytearray(), time.time_ns() // 1000
    for delta, (key, value, headers) in enumerate(records):
        tail = b"".join(prefixed(name) + struct.pack("<I", len(text)) + text for name, text in headers)
        tail = struct.pack("<H", len(headers)) + tail if headers else b""
        flags = (key is not None) * KEY | bool(headers) * HEADERS | (value is None) * NULL
        index += struct.pack("<HHiI", flags, delta, 0, len(value or b"")) + (prefixed(key) if flags & KEY else b"")
        index += struct.pack("<I", len(tail)) if headers else b""
        values += (value or b"") + tail
    body, flags = index + values, any(value is None for _, value, _ in records) * TOMBSTONES
    head = BATCH.pack(b"TRB1", 1, 0, 1, 0, flags, 0, len(records), len(records) - 1, len(body), len(index), len(values),
                      now_us, now_us, producer, 0, 0, sequence)
    return head + LEADER.pack(crc32c(head + body), 0, 0, 0, 0, 0, 0, 0) + body

def produce(partitions, text):
    """Keys choose partitions; without one it is another each round. Sends all twice, as after a lost answer; it is stored once."""
    lines, count, turn, connection_to = io.BytesIO(text), 0, 0, functools.lru_cache(None)(Connection)
    producer, _batches_kept, _, _expiry_ms = connection_to(partitions[0][1]).call(INIT_PRODUCER, b"").fields("QHHI")
    sequences = collections.Counter()  # number of the next record, by partition
    while some := lines.readlines(ROUND_BYTES):
        count, turn, batches = count + len(some), turn + 1, collections.defaultdict(list)
        for line in some:
            key, value, *headers = ((b"" if b"\t" in line else b"\\N\t") + line.rstrip(b"\n")).split(b"\t")
            key, pairs = unescaped(key), [[unescaped(part) or b"" for part in header.partition(b"=")[::2]] for header in headers]
            at = turn % len(partitions) if key is None else partition_of(key, len(partitions))
            batches[at].append((key, unescaped(value), pairs))
        for at, records in batches.items():
            (uid, owner), batch, offset = partitions[at], batch_of(records, producer, sequences[at]), None
            for _ in range(2):
                reply = connection_to(owner).call(PRODUCE, struct.pack("<B3xIIQI", DURABLE, LEVEL_MS, 1, uid, len(batch)), batch)
                level, throttle_ms, _results, told_uid, error, told_offset, *_ = reply.fields("B3xIIQH6xQqQ")
                reply.end()
                check_code(error, f"partition {at} did not take a batch of {len(records)} records")
                check(told_uid == uid and level >= DURABLE, "the node acknowledged something that was not asked")
                check(offset in (None, told_offset), f"partition {at} has a batch twice, at offsets {offset} and {told_offset}")
                offset = told_offset
                time.sleep(throttle_ms / 1000)
            sequences[at] += len(records)
    print(f"{count} records are durable", file=sys.stderr)

def unescaped(text):
    return None if text == b"\\N" else re.sub(rb"\\x([0-9a-fA-F]{2})", lambda found: bytes.fromhex(found[1].decode()), text)
def escaped(data, special=rb"[\0-\x1f\\\x7f]"):
    return b"\\N" if data is None else re.sub(special, lambda found: b"\\x%02x" % found[0][0], data)

def read_batch(payload, uid):
    """Checks the next batch. Gives its first offset, the one behind it, and of each record the offset and what is printed."""
    head = payload.take(BATCH.size + LEADER.size)
    magic, version, codec, _, _, flags, _, count, last_delta, body_len, index_len, _, first_us, *_ = BATCH.unpack_from(head)
    body_crc, _, of_uid, base, _term, append_us, header_crc, reserved = LEADER.unpack_from(head, BATCH.size)
    sound = magic == b"TRB1" and version == 1 and reserved == 0 and crc32c(head[:104]) == header_crc
    check(sound, "a batch is damaged: its header does not check")
    body, what = payload.take(body_len), f"the batch at offset {base}"
    check(crc32c(head[:64] + body) == body_crc and of_uid == uid, f"{what} is damaged or misplaced: its body does not check")
    check(codec == 0, f"{what} is compressed with codec {codec}, which Python's standard library cannot read")
    index, values, records = Reader(io.BytesIO(body[:index_len])), Reader(io.BytesIO(body[index_len:])), []
    for _ in range(count):
        marks, delta, time_delta, size = index.fields("HHiI")
        key, headers_len = index.prefixed() if marks & KEY else None, index.fields("I") if marks & HEADERS else 0
        index.take(bool(marks & DELIVER_AT) * 8 + bool(marks & PRIORITY) * 1 + bool(marks & TTL) * 4)
        _group, _id = (index.prefixed() if marks & flag else None for flag in (GROUP, ID))
        time_us, value = append_us if flags & APPEND_TIME else first_us + time_delta, values.take(size)
        pairs = [(values.prefixed(), values.take(values.fields("I"))) for _ in range(headers_len and values.fields("H"))]
        columns = [b"%d" % time_us, escaped(key), escaped(None if marks & NULL else value)]
        columns += [escaped(name, rb"[\0-\x1f\\\x7f=]") + b"=" + escaped(text) for name, text in pairs]
        records.append((base + delta, b"\t".join(columns)))
    index.end(), values.end()
    check(flags & COMPACTED or [at for at, _ in records] == list(range(base, base + last_delta + 1)), f"{what} has gaps")
    return base, base + last_delta + 1, [] if flags & CONTROL else records

def consume(number, uid, owner):  # prints what the partition holds now; no offset may be missing or come twice
    connection = Connection(owner)
    reply = connection.call(LIST_OFFSETS, struct.pack("<IQqQq", 2, uid, EARLIEST, uid, LATEST))
    _entries, _, error, _, wanted, _, _, _, _, end, _ = reply.fields("IQHHQqQHHQq")
    check_code(error, f"the node does not tell the offsets of partition {number}")
    stream = connection.send(FETCH, struct.pack("<BBHIIIIQQI", STREAMING, 0, 0, 0, 0, CREDIT_BYTES, 1, uid, wanted, CREDIT_BYTES))
    while wanted < end:
        _, _, reply, payload = connection.receive()
        _throttle_ms, entries = reply.fields("II")
        errors, batches = [reply.fields("QHHIQQQQ")[1] for _ in range(entries)], Reader(io.BytesIO(payload))
        while batches.stream.tell() < len(payload):
            first, behind, records = read_batch(batches, uid)
            check(first <= wanted < behind, f"partition {number}: offsets {first} to {behind - 1} came where {wanted} was due")
            sys.stdout.buffer.writelines(b"%d\t%d\t%s\n" % (number, at, line) for at, line in records if wanted <= at < end)
            wanted = behind
        check_code(max(errors, default=0), f"partition {number} cannot be read from offset {wanted} on")
        connection.send(FETCH_CREDIT, struct.pack("<QI", stream, len(payload)))  # what was read may come again in new bytes
    connection.socket.close()  # ends the stream, as FetchCancel does where the connection is to stay

def main(host, port, topic, mode):
    connection, topic = Connection((host.strip("[]"), int(port))), topic.encode()
    if mode != "consume":
        connection.call(CREATE_TOPIC, prefixed(topic) + struct.pack("<IHBI", PARTITIONS, 0, EXISTING_IS_FINE, 0))
    partitions = partitions_of(connection, topic)
    if mode != "consume":
        produce(partitions, sys.stdin.buffer.read())
    for number, (uid, owner) in enumerate(partitions if mode != "produce" else ()):
        consume(number, uid, owner)

if __name__ == "__main__":
    given = re.fullmatch(r"(\S+):(\d{1,5}) (\S+)(?: (produce|consume))?", " ".join(sys.argv[1:]))
    if not given:
        sys.exit(print(__doc__, file=sys.stderr) or 2)
    try:
        main(*given.groups())
    except OSError as error:
        check(False, f"talking to {given[1]}:{given[2]}, or to standard output, failed: {error}")
