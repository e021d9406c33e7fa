def add_megatron_arguments(parser):
    return parser


def validate_args(args, defaults=None):
    return args
