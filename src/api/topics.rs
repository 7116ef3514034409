//! Topic administration: requests into commands, views into replies.

use super::ApiError;
use super::metadata::Lead;
use crate::control::{
    ClusterCommand, Command, PartitionView, Setting as Known, SettingKind, SettingTable, Settings, TOPIC_SETTINGS, TopicView, View, decimal,
};
use crate::shard::mesh::PartitionStatus;
use tramline_wire::error::ErrorCode;
use tramline_wire::prim::List;
use tramline_wire::topics::{
    AlterTopicRequest, CreateFlags, CreateTopicRequest, DeleteTopicRequest, DescribeOptionsReply, DescribeTopicReply, END_UNKNOWN,
    EffectiveSetting, ListTopicsReply, OptionItem, Origin, PartitionInfo, Setting, TopicItem,
};

/// A create request as a command, with its flags.
pub struct Create {
    /// The command.
    pub command: Command,
    /// A topic of this name is fine.
    pub if_not_exists: bool,
    /// Check everything, create nothing.
    pub validate_only: bool,
}

/// Decodes a create request; `utc_us` becomes the topic's birthday.
pub fn create(meta: &[u8], utc_us: i64) -> Result<Create, ApiError> {
    let request = CreateTopicRequest::decode(meta)?;
    let (name, partitions, settings, created_us) = (request.name.to_owned(), request.partitions, owned(&request.settings), utc_us);
    let command = match request.replication {
        0 => Command::CreateTopic { name, partitions, settings, created_us },
        replicas => {
            let replicas = u8::try_from(replicas).unwrap_or(u8::MAX);
            Command::CreateReplicatedTopic { name, partitions, settings, created_us, replicas }
        }
    };
    Ok(Create {
        command,
        if_not_exists: request.flags.has(CreateFlags::IF_NOT_EXISTS),
        validate_only: request.flags.has(CreateFlags::VALIDATE_ONLY),
    })
}

/// Decodes an alter request.
pub fn alter(meta: &[u8]) -> Result<Command, ApiError> {
    let AlterTopicRequest { name, partitions, replication, settings } = AlterTopicRequest::decode(meta)?;
    if replication == 0 {
        return Ok(Command::AlterTopic { name: name.to_owned(), partitions, settings: owned(&settings) });
    }
    // Each is a command of its own, and of two one could be refused when the other is done.
    if partitions != 0 || !settings.is_empty() {
        let why = format!("the number of replicas of topic {name:?} changes by itself: ask for partitions and settings in another request");
        return Err(ApiError::new(ErrorCode::InvalidRequest, why));
    }
    let replicas = u8::try_from(replication).unwrap_or(u8::MAX);
    Ok(ClusterCommand::SetReplicas { topic: name.to_owned(), replicas }.into())
}

/// Decodes a delete request.
pub fn delete(meta: &[u8]) -> Result<Command, ApiError> {
    Ok(Command::DeleteTopic { name: DeleteTopicRequest::decode(meta)?.name.to_owned() })
}

/// Settings as a command has them.
pub(super) fn owned(settings: &List<'_, Setting<'_>>) -> Vec<(String, String)> {
    settings.iter().map(|s| (s.key.to_owned(), s.value.to_owned())).collect()
}

/// Appends the list of all topics.
pub fn list(out: &mut Vec<u8>, view: &View) {
    let item = |t: &'_ TopicView| (t.uid.0, t.partitions.len() as u32);
    let topics: Vec<_> = view
        .topics()
        .iter()
        .map(|t| {
            let (topic_uid, partitions) = item(t);
            TopicItem { name: &t.name, topic_uid, partitions }
        })
        .collect();
    ListTopicsReply { topics: List::of(&topics) }.encode(out);
}

/// All settings as they are in force, and where each comes from.
pub(super) fn told<T: SettingTable>(settings: &Settings<T>) -> Vec<EffectiveSetting<'_>> {
    let of = |(setting, value, explicit): (&'static Known, _, _)| EffectiveSetting {
        key: setting.key,
        value,
        origin: if explicit { Origin::Explicit } else { Origin::Default },
    };
    settings.effective().map(of).collect()
}

/// Appends the description of a topic; `status` holds its partitions' numbers, in any order, and `lead` tells who leads one. A partition that is missing
/// there (another node leads it, or its shard has failed) is told as one whose numbers are not known here.
pub(crate) fn describe(out: &mut Vec<u8>, topic: &TopicView, status: &[PartitionStatus], lead: impl Fn(&PartitionView) -> Lead) {
    let settings = told(&topic.settings);
    let mut sorted = status.to_vec();
    sorted.sort_unstable_by_key(|s| s.uid);
    let partitions: Vec<_> = topic
        .partitions
        .iter()
        .map(|p| {
            let numbers = sorted.binary_search_by_key(&p.uid, |s| s.uid).ok().map(|at| sorted[at]);
            let lead = lead(p);
            PartitionInfo {
                index: p.number,
                uid: p.uid.0,
                group: p.group.0,
                node: lead.node.0,
                shard: lead.shard.0,
                log_start: numbers.map_or(0, |n| n.log_start),
                committed_end: numbers.map_or(END_UNKNOWN, |n| n.committed_end),
                bytes: numbers.map_or(0, |n| n.bytes),
                segments: numbers.map_or(0, |n| n.segments),
            }
        })
        .collect();
    let reply = DescribeTopicReply {
        topic_uid: topic.uid.0,
        name: &topic.name,
        created_us: topic.created_us,
        replication: u16::from(topic.replicas),
        settings: List::of(&settings),
        partitions: List::of(&partitions),
    };
    reply.encode(out);
}

/// Appends the settings a topic can have.
pub fn options(out: &mut Vec<u8>) {
    let ranges: Vec<_> = TOPIC_SETTINGS
        .iter()
        .map(|s| match s.kind {
            SettingKind::Integer { min, max, unlimited } => {
                ("integer", if unlimited { "-1".to_owned() } else { min.to_string() }, max.to_string())
            }
            SettingKind::Word(words) => ("choice", words.join("|"), String::new()),
            SettingKind::Decimal { min, max } => ("decimal", decimal(min), decimal(max)),
            SettingKind::Topic => ("topic", String::new(), String::new()),
        })
        .collect();
    let options: Vec<_> = TOPIC_SETTINGS
        .iter()
        .zip(&ranges)
        .map(|(s, (kind, min, max))| OptionItem { key: s.key, kind, unit: s.unit, default: s.default, min, max, doc: s.doc })
        .collect();
    DescribeOptionsReply { options: List::of(&options) }.encode(out);
}
